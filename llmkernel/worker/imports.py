"""Importing transformers for text alone: a good part of a start is nothing else."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from importlib import metadata
from typing import Any

from llmkernel import collector

UNUSED = ("librosa", "scipy", "sklearn", "soundfile", "torchao", "torchaudio", "torchvision")
"""What transformers imports for pictures, sound, losses of training and the like, wherever it is
installed: seconds, where much is."""
_log = logging.getLogger(__name__)
_TURN_SECONDS = 5e-4
"""How long an import keeps the interpreter from threads that want it; Python's own is ten times that."""


@contextmanager
def lean(hidden: Collection[str] = UNUSED) -> Iterator[None]:
    """Imports inside find nothing of `hidden` that was not imported before, and collect no garbage.

    What is installed they learn package by package, and threads that read meanwhile get their turn.
    """
    modules: dict[str, Any] = sys.modules
    away = [name for name in hidden if name not in modules]
    modules.update(dict.fromkeys(away))  # None says to the import system that there is none
    whole, turn = metadata.packages_distributions, sys.getswitchinterval()
    metadata.packages_distributions = lambda: Installed(whole)
    sys.setswitchinterval(_TURN_SECONDS)
    try:
        with collector.importing():
            yield
    finally:
        sys.setswitchinterval(turn)
        metadata.packages_distributions = whole
        for name in away:
            if modules.get(name) is None:
                modules.pop(name, None)


class Installed(Mapping[str, list[str]]):
    """The distributions that a package may be of, as `whole` says, which is not called for most.

    To tell them all, metadata opens the list of files of whatever is installed; transformers asks for it
    whenever it is imported (5.17 does, 5.23 does no more), for a few packages named as their
    distributions are.
    """

    def __init__(self, whole: Any) -> None:
        self._whole = whole
        self._all: Mapping[str, list[str]] | None = None

    def __getitem__(self, package: str) -> list[str]:
        if self._all is None:
            try:
                metadata.distribution(package)
            except (metadata.PackageNotFoundError, ValueError):  # the latter for no name at all
                return self._every()[package]
            return [package]
        return self._all[package]

    def __iter__(self) -> Iterator[str]:
        return iter(self._every())

    def __len__(self) -> int:
        return len(self._every())

    def _every(self) -> Mapping[str, list[str]]:
        if self._all is None:
            self._all = self._whole()
        return self._all


def know_triton() -> threading.Thread | None:
    """Import Triton and have a thread find out which one it is; None where there is none that works.

    Before its first kernel it reads itself, half a gigabyte, to see whether what it has compiled before
    still holds. What comes of that it keeps for the process.
    """
    try:
        import triton  # noqa: F401 - whole, since a thread that imports may meet another in a circle
        from triton.runtime.cache import triton_key
    except Exception as error:  # noqa: BLE001 - of a broken installation; whoever needs it says more
        _log.info("Triton is not there: %s", error)
        return None
    thread = threading.Thread(target=triton_key, name="llmkernel-triton", daemon=True)
    thread.start()
    return thread
