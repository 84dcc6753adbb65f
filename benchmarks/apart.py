"""Work in a process of its own, so that all memory that it took is given back."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")


def call(function: Callable[..., T], *arguments: Any) -> T:
    """What `function` returns or raises in a fresh process; it and its values must pickle."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        try:
            return pool.submit(function, *arguments).result()
        except (KeyboardInterrupt, SystemExit):  # nobody waits for it any more
            for process in multiprocessing.active_children():
                process.kill()
            raise
