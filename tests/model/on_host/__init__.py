"""CUDA sources compiled for the processor, where there is a C++ compiler, and launched there."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch

from llmkernel.worker.kernels import launch
from tests.needs import skip_or_fail

_COMPILER = shutil.which("g++")
_HERE = Path(__file__).parent
_OPTIONS = ("-std=c++20", "-O1", "-shared", "-fPIC", "-pthread", "-w", f"-I{_HERE}")
_MOST_SHARED = 227 * 1024
"""Of a Hopper GPU."""
_START = """
extern "C" void start(u32 x, u32 y, u32 threads, u32 cluster, u32 at_once, u32 seed, void** given, char* error) {
  on_host::launch([](void** given) { call(&%s, given); }, {x, y}, threads, cluster, at_once, seed, given, error);
}
"""


class Kernel:
    """Called as `launch.Kernel` is; waits for the end. Raises RuntimeError for what goes wrong.

    `at_once` clusters of blocks run at the same time; `seed` is of the order in which threads do.
    """

    at_once = 2
    seed = 0

    def __init__(self, library: Path, cluster: int) -> None:
        self._start = ctypes.CDLL(str(library)).start
        self._cluster = cluster

    def __call__(
        self,
        grid: tuple[int, int],
        threads: int,
        arguments: Sequence[launch.Argument],
        shared: int = 0,
    ) -> None:
        if shared > _MOST_SHARED:
            raise RuntimeError(f"a block has {_MOST_SHARED} bytes at most, not {shared}")
        slots = [launch.slot_of(argument) for argument in arguments]
        launch.fill(slots, arguments)
        pointers = (ctypes.c_void_p * len(slots))(*map(ctypes.addressof, slots))
        error = ctypes.create_string_buffer(256)
        self._start(*grid, threads, self._cluster, self.at_once, self.seed, pointers, error)
        if error.value:
            raise RuntimeError(error.value.decode())


def need_a_compiler() -> None:
    """Skip the test, or in continuous integration fail it, where nothing can be compiled."""
    if _COMPILER is None:
        skip_or_fail("There is no g++ here. Install one with: apt-get install g++")


@functools.cache
def kernel(
    name: str, dtype: torch.dtype, shared: int = 0, carveout: int | None = None, **sizes: int
) -> Kernel:
    """`launch.kernel` for the processor."""
    defines = [f"#define {key.upper()} {value}" for key, value in sizes.items()]
    if dtype == torch.bfloat16:
        defines.append("#define BF16")
    own = launch.source(f"{name}.cu").replace(launch.source("ptx.cuh"), '#include "cuda.h"')
    text = "\n".join([*defines, own, _START % name])
    file = _folder() / f"{hashlib.blake2b(text.encode(), digest_size=16).hexdigest()}.so"
    _compile("-x", "c++", "-", "-x", "none", str(_threads()), "-o", str(file), text=text)
    return Kernel(file, sizes.get("cluster", 1))


def _compile(*arguments: str, text: str = "") -> None:
    assert _COMPILER is not None, "need_a_compiler() comes first"
    command = [_COMPILER, *_OPTIONS, *arguments]
    subprocess.run(command, input=text, text=True, check=True, timeout=100)


@functools.cache
def _threads() -> Path:
    """The library that the kernels share."""
    file = _folder() / "threads.so"
    _compile(str(_HERE / "threads.cpp"), "-o", str(file))
    return file


@functools.cache
def _temporary() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="llmkernel-on-host-")


def _folder() -> Path:
    return Path(_temporary().name)
