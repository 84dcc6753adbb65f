"""A stop watch around the forward pass of a real worker.

`benchmarks.overhead` puts this folder on PYTHONPATH before it starts a worker, whose
interpreter loads this file by its name. Where `FORWARD_CLOCK` names a file, the layers and the
output head of the worker's runner are wrapped: the CPU seconds of the engine's thread inside
them and the number of passes are kept in that file, which the benchmark maps too.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import mmap
import os
import struct
import sys
import time
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

RUNNER = "llmkernel.worker.runner"


class _Clock:
    """Two numbers in a mapped file: CPU seconds inside the forward pass, and passes."""

    def __init__(self, path: str) -> None:
        with open(path, "r+b") as file:
            self._memory = mmap.mmap(file.fileno(), 16)
        self.seconds = 0.0
        self.passes = 0.0

    def write(self) -> None:
        struct.pack_into("dd", self._memory, 0, self.seconds, self.passes)


class _Timed:
    """Calls what it stands for and adds the time to the clock; anything else it passes on."""

    def __init__(self, inner: Any, clock: _Clock, counts: int) -> None:
        self._inner = inner
        self._clock = clock
        self._counts = counts

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        began = time.thread_time()
        result = self._inner(*args, **kwargs)
        self._clock.seconds += time.thread_time() - began
        self._clock.passes += self._counts
        self._clock.write()
        return result

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class _Finder(importlib.abc.MetaPathFinder):
    """Lets the runner's module load as ever, then wraps what its runner calls."""

    def find_spec(
        self,
        name: str,
        path: Sequence[str] | None,
        target: ModuleType | None = None,  # noqa: ARG002 - the protocol's signature
    ) -> ModuleSpec | None:
        if name != RUNNER:
            return None
        sys.meta_path.remove(self)
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        assert spec is not None, "the runner is where its package is"
        assert spec.loader is not None, "it is no namespace"
        spec.loader.exec_module = _then_wrap(spec.loader.exec_module)  # type: ignore[method-assign, assignment]
        return spec


def _then_wrap(load: Callable[[ModuleType], None]) -> Callable[[ModuleType], None]:
    def exec_module(module: ModuleType) -> None:
        load(module)
        _wrap(module.ModelRunner)

    return exec_module


def _wrap(runner: Any) -> None:
    make = runner.__init__

    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        make(self, *args, **kwargs)
        clock = _Clock(os.environ["FORWARD_CLOCK"])
        self._backbone = _Timed(self._backbone, clock, 1)
        self._head = _Timed(self._head, clock, 0)

    runner.__init__ = init


if "FORWARD_CLOCK" in os.environ:
    sys.meta_path.insert(0, _Finder())
