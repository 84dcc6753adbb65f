"""CUDA C++ sources of this folder: compiled when first used, and launched.

The compiler is NVRTC, which torch brings along; no toolkit and no header is needed. On GPUs
that can (9.0 and up) a kernel is launched while the one before it in the stream still runs: it
fetches its weights, and waits before it reads what others write (programmatic dependent launch,
CUDA programming guide, "Programmatic Dependent Launch and Synchronization").
"""

from __future__ import annotations

import ctypes
import functools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from llmkernel.worker.kernels import cubins

_FOLDER = Path(__file__).parent
_STREAM_SERIALIZATION = 6
"""CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION of cuda.h."""
_EARLY_START = (9, 0)
_MOST_PLAIN_SHARED = 48 * 1024
_INCLUDE = re.compile(r'^#include "([\w.]+)"$', re.MULTILINE)


class _Attribute(ctypes.Structure):
    """CUlaunchAttribute of cuda.h: an id and a union of 64 bytes."""

    _fields_ = (("id", ctypes.c_int), ("pad", ctypes.c_int), ("value", ctypes.c_int * 16))


class _Config(ctypes.Structure):
    """CUlaunchConfig of cuda.h."""

    _fields_ = (
        ("grid", ctypes.c_uint * 3),
        ("block", ctypes.c_uint * 3),
        ("shared", ctypes.c_uint),
        ("stream", ctypes.c_void_p),
        ("attributes", ctypes.POINTER(_Attribute)),
        ("attribute_count", ctypes.c_uint),
    )


class Kernel:
    """A compiled kernel; called with tensors (their addresses), None (null), ints and floats."""

    def __init__(self, compiled: Any, early: bool) -> None:
        self._compiled = compiled
        self._early = early

    def __call__(
        self,
        grid: tuple[int, int],
        threads: int,
        arguments: Sequence[Tensor | int | float | None],
        shared: int = 0,
    ) -> None:
        """Enqueue it on the current stream. Raises RuntimeError where the driver refuses."""
        values = [_value(argument) for argument in arguments]
        pointers = (ctypes.c_void_p * len(values))(*map(ctypes.addressof, values))
        attribute = _Attribute(_STREAM_SERIALIZATION, 0, (ctypes.c_int * 16)(1))
        config = _Config(
            (ctypes.c_uint * 3)(*grid, 1),
            (ctypes.c_uint * 3)(threads, 1, 1),
            shared,
            torch.cuda.current_stream().cuda_stream,
            ctypes.pointer(attribute),
            int(self._early),
        )
        code = _driver().cuLaunchKernelEx(ctypes.byref(config), self._compiled.func, pointers, None)
        if code:
            raise RuntimeError(f"The driver refused a kernel: {_reason(code)}.")


@functools.cache
def kernel(name: str, dtype: torch.dtype, shared: int = 0, **sizes: int) -> Kernel:
    """The kernel of the file `name`.cu, compiled for these sizes and `shared` bytes of memory.

    Takes a second or so when it was never asked for on this machine. Raises RuntimeError where it
    cannot be built, or needs more of the GPU than there is.
    """
    defines = [f"#define {key.upper()} {value}" for key, value in sizes.items()]
    if dtype == torch.bfloat16:
        defines.append("#define BF16")
    compiled = cubins.load("\n".join([*defines, source(f"{name}.cu")]), name)
    if shared >= _MOST_PLAIN_SHARED:
        compiled.set_shared_memory_config(shared)
    return Kernel(compiled, torch.cuda.get_device_capability() >= _EARLY_START)


def source(file: str) -> str:
    """A source of this folder with the files that it includes, each once."""
    return _INCLUDE.sub(lambda found: source(found[1]), (_FOLDER / file).read_text())


def _value(argument: Tensor | float | None) -> Any:
    if argument is None:
        return ctypes.c_void_p(0)
    if isinstance(argument, Tensor):
        return ctypes.c_void_p(argument.data_ptr())
    return ctypes.c_float(argument) if isinstance(argument, float) else ctypes.c_int(argument)


@functools.cache
def _driver() -> Any:
    return torch.cuda._utils._get_gpu_runtime_library()


def _reason(code: int) -> str:
    text = ctypes.c_char_p()
    _driver().cuGetErrorString(code, ctypes.byref(text))
    return (text.value or b"an unknown error").decode()
