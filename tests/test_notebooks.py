"""The notebooks run from top to bottom and show what they are saved with."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_shows_what_it_is_saved_with(path, runtime_dir):
    command = [sys.executable, "-m", "pytest", "--nbval", str(path), "-q", "-p", "no:cacheprovider"]
    command += ["--nbval-sanitize-with", str(path.parent / "nbval_sanitize.cfg")]
    command += ["-c", os.devnull, "--rootdir", str(path.parent)]
    # the figures in them are the CPU's
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stdout[-6000:]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_saved_notebook_is_complete_and_free_of_this_machine(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    text = path.read_text()
    for trace in (str(Path.home()), str(ROOT), "/tmp", "widget-view", '"output_type": "error"'):
        assert trace not in text, trace
    assert "%llm stop" in code[-1].source


def test_there_is_a_notebook_for_each_thing_to_learn():
    stems = {path.stem for path in NOTEBOOKS}
    assert {"01_quickstart", "02_sampling_and_batches"} <= stems
    assert {"03_chat_panel", "04_dataframes", "05_logprobs_and_sampling"} <= stems
    assert "06_http_clients" in stems
