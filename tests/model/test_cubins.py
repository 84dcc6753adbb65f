"""Compiled kernels that are kept: loaded again, or compiled again where they cannot be trusted."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from llmkernel.worker.kernels import cubins

SOURCE = """
extern "C" __global__ void twice(const float* x, float* y, int n) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) y[i] = 2.0f * x[i];
}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LLMKERNEL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "kernels"


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A compiler and a driver that are none; the sources that the compiler was given."""
    given: list[str] = []

    def compile_one(source: str, name: str) -> tuple[bytes, str]:
        given.append(source)
        return b"code of " + source.encode(), f"_Z{name}"

    utils = SimpleNamespace(
        _nvrtc_compile=compile_one,
        _cuda_load_module=lambda code, names: {name: (code, name) for name in names},
    )
    monkeypatch.setattr(torch.cuda, "_utils", utils)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    return given


def test_a_kernel_is_compiled_once(folder: Path, compiled: list[str]) -> None:
    loaded = [cubins.load("a", "k") for _ in range(2)]
    assert loaded == [(b"code of a", "_Zk")] * 2
    assert compiled == ["a"]
    (file,) = folder.iterdir()
    assert file.stat().st_mode & 0o777 == 0o600
    assert folder.stat().st_mode & 0o777 == 0o700


def test_a_kernel_that_was_kept_is_only_loaded(folder: Path, compiled: list[str]) -> None:
    assert cubins.keep("a", "k")
    assert cubins.keep("a", "k")
    assert cubins.load("a", "k") == (b"code of a", "_Zk")
    assert compiled == ["a"]


def test_without_a_folder_nothing_is_compiled_to_be_kept(
    tmp_path: Path, compiled: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("LLMKERNEL_CACHE", str(tmp_path / "file" / "cache"))
    assert not cubins.keep("a", "k")
    assert compiled == []


def test_another_source_device_or_compiler_is_another_kernel(
    folder: Path, compiled: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    cubins.load("a", "k")
    cubins.load("b", "k")
    cubins.load("a", "other")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (8, 0))
    cubins.load("a", "k")
    monkeypatch.setattr(torch, "__version__", "0.0")
    cubins.load("a", "k")
    monkeypatch.setattr(torch.version, "cuda", "0.0")
    cubins.load("a", "k")
    assert compiled == ["a", "b", "a", "a", "a", "a"]


def torn(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


def changed(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)


def empty(file: Path) -> None:
    file.write_bytes(b"")


def open_to_all(file: Path) -> None:
    file.chmod(0o666)


def linked(file: Path) -> None:
    file.rename(file.parent.parent / "elsewhere")
    file.symlink_to(file.parent.parent / "elsewhere")


def pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


@pytest.mark.parametrize("spoil", [torn, changed, empty, open_to_all, linked, pipe])
def test_what_cannot_be_trusted_is_compiled_again(
    folder: Path, compiled: list[str], spoil: Any
) -> None:
    cubins.load("a", "k")
    (file,) = folder.iterdir()
    spoil(file)
    for _ in range(2):
        assert cubins.load("a", "k") == (b"code of a", "_Zk")
    assert compiled == ["a", "a"]


def test_what_the_driver_refuses_is_compiled_again(
    folder: Path, compiled: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    cubins.load("a", "k")
    answers = [RuntimeError("no kernel image"), None]

    def load(code: bytes, names: list[str]) -> dict[str, Any]:
        if answer := answers.pop(0):
            raise answer
        return dict.fromkeys(names, code)

    monkeypatch.setattr(torch.cuda._utils, "_cuda_load_module", load)
    assert cubins.load("a", "k") == b"code of a"
    assert compiled == ["a", "a"]


def test_without_a_folder_kernels_are_compiled(
    tmp_path: Path, compiled: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LLMKERNEL_CACHE", str(tmp_path / "file" / "cache"))
    assert cubins.load("a", "k") == (b"code of a", "_Zk")


def test_the_oldest_make_room(
    folder: Path, compiled: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cubins, "_MOST", 4)
    for source in "abcdefgh":
        cubins.load(source, "k")
        assert len(list(folder.iterdir())) <= 4
    cubins.load("h", "k")
    assert compiled == list("abcdefgh")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_kept_kernel_computes_the_same(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(1000, device="cuda")

    def run() -> torch.Tensor:
        y = torch.empty_like(x)
        cubins.load(SOURCE, "twice")((4, 1, 1), (256, 1, 1), [x, y, 1000])
        return y

    assert torch.equal(run(), 2 * x)
    assert len(list(folder.iterdir())) == 1
    monkeypatch.setattr(torch.cuda._utils, "_nvrtc_compile", lambda *_: pytest.fail("compiled"))
    assert torch.equal(run(), 2 * x)
