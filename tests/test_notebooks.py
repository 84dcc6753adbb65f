"""The notebooks run from top to bottom and show what they are saved with."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from llmkernel import connection
from tests.conftest import stop_worker

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
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=280, check=False
        )
        left = [worker.name for worker in connection.list_workers()]
    finally:
        for worker in connection.list_workers():
            stop_worker(worker)
    assert done.returncode == 0, done.stdout[-6000:]
    assert left == ["demo"], "somebody else's worker may be the same"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_saved_notebook_is_complete_and_free_of_this_machine(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    text = path.read_text()
    for trace in (str(Path.home()), str(ROOT), "/tmp", "widget-view", '"output_type": "error"'):
        assert trace not in text, trace
    assert code[-1].source == "# %llm stop"
    assert "When nobody" in "".join(cell.source for cell in notebook.cells[-4:])
    lines = [line for cell in code for line in cell.source.splitlines()]
    assert not [line for line in lines if line.startswith("%llm stop") or "llm.stop(" in line]


def test_there_is_a_notebook_for_each_thing_to_learn():
    stems = {path.stem for path in NOTEBOOKS}
    assert {"01_quickstart", "02_sampling_and_batches"} <= stems
    assert {"03_chat_panel", "04_dataframes", "05_logprobs_and_sampling"} <= stems
    assert "06_http_clients" in stems
