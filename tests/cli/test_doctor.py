"""What `doctor` says of machines with and without a GPU, a driver and torch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from llmkernel import doctor
from llmkernel.doctor import SHAPES, Gpu, Library

TEN_GB = 10 * 10**9


def gpu(free: int, index: int = 0) -> Gpu:
    return Gpu(index, "NVIDIA H200", 80 * 10**9, free, "580.1", "9.0")


@pytest.fixture
def fake_driver(tmp_path, monkeypatch):
    """Put an nvidia-smi on the path that prints what it is told."""

    def install(script: str) -> None:
        program = tmp_path / "nvidia-smi"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)

    return install


def run(*arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "llmkernel.cli", "doctor", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env=env,
        check=False,
    )


def test_a_machine_without_a_gpu_is_told_so_and_is_no_problem(tmp_path):
    done = run("--json", env={**os.environ, "PATH": str(tmp_path)})
    report = json.loads(done.stdout)
    assert done.returncode == 0, report["problems"]
    assert report["gpus"] == []
    assert {fit["on"] for fit in report["fits"]} <= {"cpu", ""}


def test_the_text_names_libraries_and_models(tmp_path):
    done = run(env={**os.environ, "PATH": str(tmp_path)})
    assert "none; models run on the CPU" in done.stdout
    assert "transformers" in done.stdout
    assert "Llama-3.1-8B" in done.stdout


def test_it_works_where_torch_is_not_installed(tmp_path):
    # A folder with the core's dependencies alone, on an interpreter without site-packages.
    names = ("click", "jupyter_core", "msgspec", "platformdirs", "psutil", "traitlets", "zmq")
    names += ("llmkernel",)
    for name in names:
        found = __import__(name).__file__
        (tmp_path / name).symlink_to(Path(found).parent)
    for extra in Path(__import__("zmq").__file__).parent.parent.glob("pyzmq*"):
        (tmp_path / extra.name).symlink_to(extra)
    command = "from llmkernel.cli import main; main(['doctor', '--json'])"
    done = subprocess.run(
        [sys.executable, "-S", "-c", command],
        capture_output=True,
        text=True,
        timeout=60,
        env={"PYTHONPATH": str(tmp_path), "PATH": str(tmp_path), "HOME": str(tmp_path)},
        check=False,
    )
    report = json.loads(done.stdout)
    assert done.returncode == 1
    assert any(
        "torch" in problem and "llmkernel[worker]" in problem for problem in report["problems"]
    )


def test_gpus_are_read_from_the_driver(fake_driver):
    fake_driver('echo "0, NVIDIA H200, 143771, 140000, 580.95.05, 9.0"')
    gpus, problems = doctor.find_gpus()
    assert problems == []
    assert gpus == [
        Gpu(0, "NVIDIA H200", 143_771 * 2**20, 140_000 * 2**20, "580.95.05", "9.0"),
    ]


def test_a_card_that_shares_its_memory_has_none_of_its_own(fake_driver):
    fake_driver('echo "0, GB10, [N/A], [N/A], 580.95.05, 12.1"')
    (found,), _ = doctor.find_gpus()
    assert (found.total_bytes, found.free_bytes) == (0, 0)


def test_a_broken_driver_is_a_problem_with_its_own_words(fake_driver):
    fake_driver("echo 'Failed to initialize NVML: Driver/library version mismatch'; exit 18")
    gpus, problems = doctor.find_gpus()
    assert gpus == []
    assert "version mismatch" in problems[0]


def test_a_gpu_that_torch_cannot_use_is_a_problem(fake_driver):
    fake_driver('echo "0, NVIDIA H200, 143771, 140000, 580.95.05, 9.0"')
    done = run("--json")
    report = json.loads(done.stdout)
    if "cu" in next(entry["version"] for entry in report["libraries"] if entry["name"] == "torch"):
        pytest.skip("this torch is built for CUDA")
    assert done.returncode == 1
    assert any("torch" in problem for problem in report["problems"])


def test_a_model_fits_on_the_gpu_with_most_room_and_else_on_the_cpu():
    on = {fit.label: fit.on for fit in doctor.fits([gpu(10**9), gpu(9 * 10**9, 1)], 3 * TEN_GB)}
    assert on["8B"] == "gpu 1"
    assert on["14B"] == "cpu"
    assert on["70B"] == ""


def test_sizes_grow_with_the_models():
    needed = [shape.needed_bytes() for shape in SHAPES]
    assert needed == sorted(needed)


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.label)
def test_the_shapes_have_the_parameters_that_their_label_says(shape):
    assert shape.parameters / 1e9 == pytest.approx(float(shape.label[:-1]), rel=0.25)


def test_an_old_library_is_named_with_what_is_needed(monkeypatch):
    monkeypatch.setattr(doctor, "version", lambda name: "2.9.1+cu128")
    assert doctor.library("torch") == Library("torch", "2.9.1+cu128", "needs 2.11 or newer")
    monkeypatch.setattr(doctor, "version", lambda name: "2.13.0rc1")
    assert doctor.library("torch").problem == ""


def test_a_runtime_folder_that_cannot_be_used_is_a_problem(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "file" / "below"))
    (problem,) = doctor.runtime_problems()
    assert "runtime folder" in problem
    open_to_all = tmp_path / "open"
    open_to_all.mkdir()
    open_to_all.chmod(0o777)
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(open_to_all))
    (problem,) = doctor.runtime_problems()
    assert "chmod 700" in problem
