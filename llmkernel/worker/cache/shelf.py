"""The folder of kept models: one folder each, complete or not there, the least used ones leave first."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import shutil
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from llmkernel.units import size
from llmkernel.worker.cache import manifest
from llmkernel.worker.cache.manifest import Manifest, Torn

_ASIDE = 2**30
"""Bytes of the disk that are left free."""
_STALE_SECONDS = 3600.0
"""After this nobody writes a folder any more that is not complete."""
_log = logging.getLogger(__name__)


class Entry(NamedTuple):
    """A kept model; it may be removed while it is read, which is found when it is."""

    folder: Path
    manifest: Manifest


class Shelf:
    """Kept models below `root`, in `most` bytes. Several processes may use it at the same time."""

    def __init__(self, root: Path, most: int) -> None:
        self._root = root
        self._most = most

    def find(self, key: str, facts: dict[str, str]) -> Entry | None:
        """What is kept under `key`, if it was made of `facts`; what cannot be used is removed."""
        folder = self._root / key
        if not folder.is_dir():
            return None
        try:
            _check_owner(self._root, folder)
            found = manifest.read(folder, facts)
        except (Torn, OSError) as error:
            self.discard(key, str(error))
            return None
        with contextlib.suppress(OSError):
            os.utime(folder)  # used just now
        return Entry(folder, found)

    def discard(self, key: str, why: str) -> None:
        """Remove what is kept under `key`."""
        _log.warning("the kept weights %s are not used and made again: %s", key, why)
        self._remove(self._root / key)

    def add(self, key: str, needed: int, write: Callable[[Path], None]) -> bool:
        """Keep under `key` what `write` puts into a folder, about `needed` bytes; whether it is kept.

        The folder gets its name when it is complete. Raises OSError as `write` does.
        """
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder = self._root / f".{key}.{secrets.token_hex(4)}"
        folder.mkdir(mode=0o700)
        try:
            self._sweep(folder.stat().st_mtime)
            if not self._make_room(needed):
                return False
            write(folder)
            self._remove(self._root / key)
            folder.rename(self._root / key)
        finally:
            shutil.rmtree(folder, ignore_errors=True)  # a whole one is not there any more
        _settle(self._root / key)
        return True

    def _make_room(self, needed: int) -> bool:
        """Remove the least recently used until `needed` bytes fit."""
        kept = sorted(self._kept(), key=lambda one: one[1])
        taken = sum(amount for _, _, amount in kept)
        if needed > self._most:
            _log.info("weights of %s are not kept: LLMKERNEL_CACHE_SIZE is less", size(needed))
            return False
        while kept and (taken + needed > self._most or self._free() < needed + _ASIDE):
            folder, _, amount = kept.pop(0)
            _log.info("the kept weights %s make room", folder.name)
            self._remove(folder)
            taken -= amount
        if self._free() < needed + _ASIDE:
            _log.warning("weights of %s are not kept: the disk is too full", size(needed))
            return False
        return True

    def _kept(self) -> Iterator[tuple[Path, float, int]]:
        """Folder, last use and bytes of each."""
        for folder in self._root.iterdir():
            with contextlib.suppress(OSError):  # another process removes it
                if folder.is_dir() and not folder.name.startswith("."):
                    real = () if folder.is_symlink() else folder.iterdir()
                    amount = sum(path.stat().st_size for path in real)
                    yield folder, folder.lstat().st_mtime, amount

    def _free(self) -> int:
        return shutil.disk_usage(self._root).free

    def _sweep(self, now: float) -> None:
        """Remove what processes have left that ended while they wrote; `now` is the disk's time."""
        for folder in self._root.glob(".*"):
            with contextlib.suppress(OSError):
                if now - folder.lstat().st_mtime > _STALE_SECONDS:
                    _delete(folder)

    def _remove(self, folder: Path) -> None:
        """Remove a folder as one: under another name before its files go."""
        aside = self._root / f".{folder.name}.{secrets.token_hex(4)}"
        with contextlib.suppress(OSError):
            folder.rename(aside)
            _delete(aside)


def _delete(folder: Path) -> None:
    """Delete a folder, or a file or link in place of one; never what a link leads to."""
    if folder.is_symlink() or not folder.is_dir():
        folder.unlink(missing_ok=True)
    else:
        shutil.rmtree(folder, ignore_errors=True)


def _check_owner(root: Path, folder: Path) -> None:
    """Raise Torn where somebody else could have written."""
    for path in (root, folder, *folder.iterdir()):
        facts = path.lstat()
        foreign = facts.st_uid != os.geteuid() or stat.S_ISLNK(facts.st_mode)
        if foreign or facts.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise Torn(f"{path.name} could be written by others")


def _settle(folder: Path) -> None:
    """Have the system write a folder to the disk, in a thread.

    It is there for every process already. Only a power cut could still tear it, and
    its checksums show that; so nobody waits for gigabytes to reach the disk.
    """

    def work() -> None:
        with contextlib.suppress(OSError):
            for path in (*folder.iterdir(), folder, folder.parent):
                descriptor = os.open(path, os.O_RDONLY)
                try:
                    os.fsync(descriptor)
                finally:
                    os.close(descriptor)

    threading.Thread(target=work, name="llmkernel-settle", daemon=True).start()
