"""Python's garbage collector in a process that serves for days."""

from __future__ import annotations

import gc

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
