"""Kernels compiled before a step needs them: some at once for the first steps, the rest while requests are served.

A product has a kernel for each size of steps, and attention for some; compiling one takes up to half
a second, and a processor. Those of one stream and of short prompts are compiled before a worker is
ready, several at a time. The others would else be compiled in the step that needs them first, with
everybody waiting.
"""

from __future__ import annotations

import atexit
import itertools
import logging
import os
import threading
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import nn

from llmkernel.worker.kernels import four_bit, launch
from llmkernel.worker.kernels.four_bit import ANY_COUNT
from llmkernel.worker.models.fused import PROBES, FusedLayer, candidates
from llmkernel.worker.models.packed import PackedLinear

_AT_ONCE = 8
"""Kernels that are compiled beside each other, where there are as many processors."""
_PATIENCE = 10.0
"""Seconds that the end of the process waits for the kernel that is being compiled."""
_log = logging.getLogger(__name__)

Kernel = tuple[str, dict[str, int]]
"""Name and sizes."""


def ahead(model: Any, dtype: torch.dtype, device: torch.device, counts: Collection[int]) -> None:
    """Compile what a packed model launches while its layers are fused, and then for `counts` of tokens.

    What cannot be compiled is passed over: the step that needs it says so.
    """

    def compiled(kernel: Kernel) -> None:
        if device.index is not None:
            torch.cuda.set_device(device)
        name, sizes = kernel
        try:
            launch.keep(name, dtype, **sizes)
        except Exception as error:  # noqa: BLE001 - of NVRTC, or none is there
            _log.info("%s %s cannot be compiled ahead: %s", name, sizes, error)

    wanted = _once(_of_first_steps(model, counts))
    with ThreadPoolExecutor(min(_AT_ONCE, _processors()), "llmkernel-compile") as pool:
        list(pool.map(compiled, wanted))


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
    fused = [module for module in model.modules() if isinstance(module, FusedLayer)]
    inside = {id(linear) for layer in fused for linear, _, _ in layer.products()}
    others = (
        four_bit.kernels_of(module.packed, norm=False, gated=False)
        for module in model.modules()
        if isinstance(module, PackedLinear) and module.kernels and id(module) not in inside
    )
    return _once(itertools.chain(*map(_of_layer, fused), *others))


def _processors() -> int:
    """Those that this process may use, where the system tells."""
    allowed = getattr(os, "sched_getaffinity", None)
    return len(allowed(0)) if allowed else os.cpu_count() or 1


def _of_first_steps(model: Any, counts: Collection[int]) -> Iterator[Kernel]:
    for layer in candidates(model):
        yield from _of_layer(layer, counts)
        for linear, _, _ in layer.products():  # as transformers' own code launches them
            yield from four_bit.kernels_of(linear.packed, norm=False, gated=False, counts=PROBES)
        yield "rope_write", {"dim": layer.pool.keys.shape[3]}
        yield from (("rms_norm", {}), ("rotary", {}), ("likeliest", {}))


def _of_layer(layer: FusedLayer, counts: Collection[int] = ANY_COUNT) -> Iterator[Kernel]:
    yield from layer.attention_kernels()
    for linear, norm, gated in layer.products():
        yield from four_bit.kernels_of(linear.packed, norm=norm, gated=gated, counts=counts)


def _once(kernels: Iterator[Kernel]) -> Iterator[Kernel]:
    seen: list[Kernel] = []
    for kernel in kernels:
        if kernel not in seen:
            seen.append(kernel)
            yield kernel
