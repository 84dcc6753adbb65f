"""The commands as one types them, on a checkpoint so small that a CPU serves it at once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of the tiny shape."""
    from benchmarks import random_model
    from benchmarks.shapes import SHAPES

    folder = tmp_path_factory.mktemp("checkpoint") / "tiny"
    random_model.build(folder, SHAPES["tiny"])
    return folder


@pytest.fixture
def measured(
    runtime_dir: Path, tiny_folder: Path, tmp_path: Path
) -> Callable[..., tuple[dict[str, Any], str]]:
    """Runs `python -m benchmarks.<command>` on the tiny shape; what it saved and what it printed."""

    def run(command: str, *arguments: str) -> tuple[dict[str, Any], str]:
        saved = tmp_path / command
        done = subprocess.run(
            [sys.executable, "-m", f"benchmarks.{command}", "--folder", str(tiny_folder),
             "--save", str(saved), *arguments],
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        (path,) = saved.iterdir()
        return json.loads(path.read_text()), done.stdout

    return run
