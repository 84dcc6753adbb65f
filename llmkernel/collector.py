"""Python's garbage collector in a process that serves for days."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_COLLECT_AFTER = (50_000, 20, 100)
"""Objects more than before, and how many collections of one age make one of the next."""


def settle() -> None:
    """Tell the collector that what is loaded by now stays, and to look less often for more.

    Libraries and model are a million objects, and to look through them holds everybody up for
    as long as many steps; what a step or an answer makes is freed when it is done with,
    without the collector.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_COLLECT_AFTER)


@contextmanager
def paused() -> Iterator[None]:
    """Look for nothing meanwhile."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@contextmanager
def importing() -> Iterator[None]:
    """Look for nothing while modules are imported, nor among what is there then: they stay.

    Else each look would find more of them, and the first one afterwards all.
    """
    before = len(sys.modules)
    with paused():
        yield
        if len(sys.modules) > before:
            gc.freeze()
