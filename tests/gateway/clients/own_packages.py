"""An interpreter for clients that want other versions of our packages than we do."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from tests.needs import skip_or_fail

INSTALL_SECONDS = 300
"""Much more than it takes: two such tests may run at once, on a slow network."""


class Python(NamedTuple):
    """How it is started."""

    command: list[str]
    environment: dict[str, str]

    def run(self, code: str, *arguments: str, **variables: str) -> str:
        """What a program prints. Raises AssertionError where it fails."""
        done = subprocess.run(
            [*self.command, "-c", code, *arguments],
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
            env=self.environment | variables,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


@contextmanager
def own_python(folder: Path, *packages: str) -> Iterator[Python]:
    """One that has these packages, in `folder` while the block runs, and none of ours.

    Skips the test where they cannot be had; in CI that is a failure.
    """
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-input", "--no-compile"]
    install += ["--retries", "1", "--disable-pip-version-check", "--target", str(folder)]
    try:
        done = subprocess.run(
            [*install, *packages],
            capture_output=True,
            text=True,
            timeout=INSTALL_SECONDS,
            check=False,
        )
        why = done.stderr[-2000:] if done.returncode else ""
    except subprocess.TimeoutExpired:
        why = f"pip did not end within {INSTALL_SECONDS} s"
    if why:
        skip_or_fail(f"{packages[0]} cannot be installed: {why}")
    try:
        # -S leaves our own packages out
        yield Python([sys.executable, "-S"], os.environ | {"PYTHONPATH": str(folder)})
    finally:
        shutil.rmtree(folder, ignore_errors=True)
