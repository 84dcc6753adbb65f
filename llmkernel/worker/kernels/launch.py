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
EARLY_START = (9, 0)
"""Compute capability from which on kernels start early."""
_PREFERRED_CARVEOUT = 9
"""CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT of cuda.h."""
_MOST_PLAIN_SHARED = 48 * 1024
_INCLUDE = re.compile(r'^#include "([\w.]+)"$', re.MULTILINE)


Argument = Tensor | int | float | tuple[float, ...] | None
"""Of a kernel. A tuple is a struct of floats."""


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
    """A compiled kernel; called with tensors (their addresses), None (null), numbers and tuples of floats.

    A launch costs as much as many kernels take, so what the driver is given is made at the first
    one and filled in again at each: the kinds of the arguments stay the same, and one thread
    calls at a time.
    """

    def __init__(self, compiled: Any, early: bool, device: int) -> None:
        self._function = compiled.func
        self._early = early
        self._device = device
        self._slots: list[Any] = []
        self._pointers: Any = None
        self._attribute = _Attribute(_STREAM_SERIALIZATION, 0, (ctypes.c_int * 16)(1))
        self._config = _Config(
            attributes=ctypes.pointer(self._attribute), attribute_count=int(early)
        )
        self._config_at = ctypes.byref(self._config)
        self._launch = _driver().cuLaunchKernelEx

    def __call__(
        self,
        grid: tuple[int, int],
        threads: int,
        arguments: Sequence[Argument],
        shared: int = 0,
    ) -> None:
        """Enqueue it on the current stream. Raises RuntimeError where the driver refuses."""
        if not self._slots:
            self._slots = [slot_of(argument) for argument in arguments]
            self._pointers = (ctypes.c_void_p * len(self._slots))(
                *map(ctypes.addressof, self._slots)
            )
        fill(self._slots, arguments)
        config = self._config
        config.grid[:] = (*grid, 1)
        config.block[:] = (threads, 1, 1)
        config.shared = shared
        config.stream = _current_stream(self._device)
        code = self._launch(self._config_at, self._function, self._pointers, None)
        if code:
            raise RuntimeError(f"The driver refused a kernel: {_reason(code)}.")


@functools.cache
def kernel(
    name: str, dtype: torch.dtype, shared: int = 0, carveout: int | None = None, **sizes: int
) -> Kernel:
    """The kernel of the file `name`.cu, compiled for these sizes and `shared` bytes of memory.

    `carveout` is the percentage of a multiprocessor's L1 that it would have be shared memory; where
    it says nothing, what the kernel before it had may stay. Takes a second or so when it was never
    asked for on this machine. Raises RuntimeError where it cannot be built, or needs more of the
    GPU than there is.
    """
    compiled = cubins.load(_text(name, dtype, sizes), name)
    if shared >= _MOST_PLAIN_SHARED:
        compiled.set_shared_memory_config(shared)
    if carveout is not None:  # a hint: what the driver says to it is of no consequence
        _driver().cuFuncSetAttribute(compiled.func, _PREFERRED_CARVEOUT, carveout)
    early = torch.cuda.get_device_capability() >= EARLY_START
    return Kernel(compiled, early, torch.cuda.current_device())


def keep(name: str, dtype: torch.dtype, **sizes: int) -> bool:
    """Have what `kernel` would compile ready on disk, as `cubins.keep`."""
    return cubins.keep(_text(name, dtype, sizes), name)


def _text(name: str, dtype: torch.dtype, sizes: dict[str, int]) -> str:
    defines = [f"#define {key.upper()} {value}" for key, value in sizes.items()]
    if dtype == torch.bfloat16:
        defines.append("#define BF16")
    return "\n".join([*defines, source(f"{name}.cu")])


def source(file: str) -> str:
    """A source of this folder with the files that it includes, each once."""
    return _INCLUDE.sub(lambda found: source(found[1]), (_FOLDER / file).read_text())


def slot_of(argument: Argument) -> Any:
    """Where an argument of this kind is put for the driver."""
    if argument is None or isinstance(argument, Tensor):
        return ctypes.c_void_p()
    if isinstance(argument, tuple):
        return (ctypes.c_float * len(argument))()
    return ctypes.c_float() if isinstance(argument, float) else ctypes.c_int()


def fill(slots: Sequence[Any], arguments: Sequence[Argument]) -> None:
    """Put arguments where the driver reads them."""
    for slot, argument in zip(slots, arguments, strict=True):
        if isinstance(argument, tuple):
            slot[:] = argument
        else:
            slot.value = argument.data_ptr() if isinstance(argument, Tensor) else argument


def _current_stream(device: int) -> int:
    raw: Any = torch._C
    return int(raw._cuda_getCurrentRawStream(device))


@functools.cache
def _driver() -> Any:
    return torch.cuda._utils._get_gpu_runtime_library()


def _reason(code: int) -> str:
    text = ctypes.c_char_p()
    _driver().cuGetErrorString(code, ctypes.byref(text))
    return (text.value or b"an unknown error").decode()
