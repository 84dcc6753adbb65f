"""Importing transformers for text alone: a good part of a start is nothing else."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

from llmkernel import collector

UNUSED = ("librosa", "scipy", "sklearn", "soundfile", "torchao", "torchaudio", "torchvision")
"""What transformers imports for pictures, sound, losses of training and the like, wherever it is
installed: seconds, where much is."""


@contextmanager
def lean(hidden: Collection[str] = UNUSED) -> Iterator[None]:
    """Imports inside find nothing of `hidden` that was not imported before, and collect no garbage."""
    modules: dict[str, Any] = sys.modules
    away = [name for name in hidden if name not in modules]
    modules.update(dict.fromkeys(away))  # None says to the import system that there is none
    try:
        with collector.importing():
            yield
    finally:
        for name in away:
            if modules.get(name) is None:
                modules.pop(name, None)
