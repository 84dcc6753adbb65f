"""The GPU's driver, woken in a thread while torch is imported: each takes a second or more."""

from __future__ import annotations

import ctypes
import threading
from importlib import metadata
from typing import Any

_LIBRARY = "libcuda.so.1"


def begin(device: str) -> threading.Thread | None:
    """Start the driver for a worker on `device`, as in its settings; the thread that does it.

    Where it is clear which GPU it will be, its context is made too, which torch finds then.
    Nothing depends on it: what goes wrong here, torch will see and say.
    """
    try:
        if device == "cpu" or metadata.version("torch").endswith("+cpu"):
            return None
    except metadata.PackageNotFoundError:
        return None
    thread = threading.Thread(target=_begin, args=(device,), name="llmkernel-driver", daemon=True)
    thread.start()
    return thread


def _begin(device: str) -> None:
    try:
        cuda: Any = ctypes.CDLL(_LIBRARY)
    except OSError:  # no driver here
        return
    count = ctypes.c_int()
    if cuda.cuInit(0) or cuda.cuDeviceGetCount(ctypes.byref(count)):
        return
    index = _index(device, count.value)
    found, context = ctypes.c_int(), ctypes.c_void_p()
    if index is not None and not cuda.cuDeviceGet(ctypes.byref(found), index):
        cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), found)


def _index(device: str, count: int) -> int | None:
    """The GPU of a setting among `count`; None where torch is to choose, or there is none such."""
    named = device.partition(":")[2]
    index = int(named) if named else 0
    return index if index < count and (named or count == 1) else None
