"""Kernels for other numbers of rows, compiled while the first requests are served.

A product has a kernel for each size of steps, and attention for some; compiling one takes up to half
a second. Those of one stream and of short prompts are compiled before a worker is ready. Without
this the others would be compiled in the step that needs them first, with everybody waiting.
"""

from __future__ import annotations

import atexit
import logging
import threading
from collections.abc import Iterator

import torch
from torch import nn

from llmkernel.worker.kernels import four_bit, launch
from llmkernel.worker.models.fused import FusedLayer
from llmkernel.worker.models.packed import PackedLinear

_PATIENCE = 10.0
"""Seconds that the end of the process waits for the kernel that is being compiled."""
_log = logging.getLogger(__name__)

Kernel = tuple[str, dict[str, int]]
"""Name and sizes."""


def begin(model: nn.Module, dtype: torch.dtype, device: torch.device) -> threading.Thread:
    """Compile what the layers of a model may need, on a thread that the process ends with."""
    wanted = list(kernels_of(model))
    stopped = threading.Event()

    def work() -> None:
        if device.index is not None:
            torch.cuda.set_device(device)
        failed: set[str] = set()
        for name, sizes in wanted:
            try:
                if stopped.is_set() or not launch.keep(name, dtype, **sizes):
                    return
            except RuntimeError as error:  # the step that needs it says so, if one ever does
                if name not in failed:
                    _log.warning("%s %s cannot be compiled: %s", name, sizes, error)
                failed.add(name)

    thread = threading.Thread(target=work, name="llmkernel-compile", daemon=True)

    def end() -> None:
        stopped.set()
        thread.join(_PATIENCE)

    atexit.register(end)
    thread.start()
    return thread


def kernels_of(model: nn.Module) -> Iterator[Kernel]:
    """Every kernel that attention and products of a model may launch, each once."""
    seen: list[Kernel] = []
    for kernel in _wanted(model):
        if kernel not in seen:
            seen.append(kernel)
            yield kernel


def _wanted(model: nn.Module) -> Iterator[Kernel]:
    fused = [module for module in model.modules() if isinstance(module, FusedLayer)]
    for layer in fused:
        yield from layer.attention_kernels()
    products = [product for layer in fused for product in layer.products()]
    inside = {id(linear) for linear, _, _ in products}
    products += [
        (module, False, False)
        for module in model.modules()
        if isinstance(module, PackedLinear) and module.kernels and id(module) not in inside
    ]
    for linear, norm, gated in products:
        yield from four_bit.kernels_of(linear.packed, norm=norm, gated=gated)
