"""Run the notebooks of `notebooks/` from top to bottom and save them with their outputs.

    python tools/run_notebooks.py [NOTEBOOK …]

The worker is a fresh one in a folder of its own, on the CPU, as in the tests that compare the
outputs. Needed after a change of the embedded model or of what the magics show.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

from llmkernel import connection, launcher

NOTEBOOKS = Path(__file__).parent.parent / "notebooks"


def run(path: Path) -> None:
    """Execute one notebook in place. Raises CellExecutionError where a cell fails."""
    notebook = nbformat.read(path, as_version=4)
    where = {"metadata": {"path": str(path.parent)}}
    NotebookClient(notebook, timeout=300, coalesce_streams=True, resources=where).execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # times of day
    notebook.metadata["language_info"] = {"name": "python"}  # not this machine's version
    nbformat.write(notebook, path)


def main(arguments: list[str]) -> None:
    """Run what is named, or all."""
    with tempfile.TemporaryDirectory(prefix="lk-") as folder:
        os.environ |= {"JUPYTER_RUNTIME_DIR": folder, "XDG_RUNTIME_DIR": folder}
        os.environ |= {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
        for path in map(Path, arguments) if arguments else sorted(NOTEBOOKS.glob("*.ipynb")):
            try:
                run(path)
            finally:  # each has a fresh one, and none stops what others may use
                for worker in connection.list_workers():
                    launcher.stop(worker)


if __name__ == "__main__":
    main(sys.argv[1:])
