"""Presets that outlive a kernel: a file in Jupyter's configuration folder, for this user alone.

It is read again before each change, under a lock, so that panels of several notebooks add to one
another; it is written whole or not at all. A file that cannot be read is left as it is.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
from jupyter_core.paths import jupyter_config_dir

from llmkernel.errors import InvalidRequest

Preset = dict[str, Any]
MAX_BYTES = 1_000_000


class PresetFile:
    """The presets that somebody kept, by name; `path` is where another one than theirs is."""

    def __init__(self, path: Path | None = None) -> None:
        self.path = path or Path(jupyter_config_dir()) / "llmkernel" / "presets.json"

    def read(self) -> dict[str, Preset]:
        """All of them; none where there is no file. Raises InvalidRequest for one of another kind."""
        try:
            with self.path.open("rb") as file:
                data = file.read(MAX_BYTES + 1)
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise self._unusable(str(error.strerror)) from None
        if len(data) > MAX_BYTES:
            raise self._unusable(f"it has more than {MAX_BYTES:,} bytes")
        try:
            return msgspec.json.decode(data, type=dict[str, Preset])
        except (msgspec.DecodeError, RecursionError) as error:
            raise self._unusable(str(error)) from None

    def put(self, name: str, preset: Preset) -> dict[str, Preset]:
        """Keep one, in the place of another of that name; all there are. Raises InvalidRequest."""
        with self._alone():
            presets = self.read() | {name: preset}
            self._write(presets)
        return presets

    def drop(self, name: str) -> dict[str, Preset]:
        """Forget one; all that are left. Raises InvalidRequest."""
        with self._alone():
            presets = self.read()
            if presets.pop(name, None) is not None:
                self._write(presets)
        return presets

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Nobody else changes the file. The lock is on its folder, which is ours and stays."""
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            fd = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            raise self._unusable(str(error.strerror)) from None
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    def _write(self, presets: dict[str, Preset]) -> None:
        data = msgspec.json.format(msgspec.json.encode(presets), indent=1)
        try:
            fd, temporary = tempfile.mkstemp(prefix=".presets.", dir=self.path.parent)  # 0600
            try:
                with os.fdopen(fd, "wb") as file:
                    file.write(data + b"\n")
                    file.flush()
                    os.fsync(fd)
                os.replace(temporary, self.path)
            except BaseException:
                Path(temporary).unlink(missing_ok=True)
                raise
        except OSError as error:
            raise self._unusable(str(error.strerror)) from None

    def _unusable(self, why: str) -> InvalidRequest:
        return InvalidRequest(
            f"The presets in {self.path} cannot be used: {why}. Mend that file, or move it away."
        )
