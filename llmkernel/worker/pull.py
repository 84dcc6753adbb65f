"""`python -m llmkernel.worker.pull MODEL [REVISION]`: download a model and say how far it is.

The program `llmkernel pull` runs this, so that a download takes exactly what a worker will
ask for and nothing outside the worker's room needs the hub's library. Standard output has one
JSON object a line: Progress while it goes on, then `{"folder", "revision"}` or `{"error": …}`.
"""

from __future__ import annotations

import sys
from typing import Any

import msgspec

from llmkernel.errors import LLMKernelError
from llmkernel.protocol import Progress, wire_error
from llmkernel.worker.hub import resolve


def main(model: str, revision: str | None = None) -> int:
    """Download; the exit code is 0 or, after an error of this project, 1."""
    try:
        source = resolve(model, revision, _tell)
    except LLMKernelError as error:
        _write({"error": wire_error(error)})
        return 1
    _write({"folder": str(source.folder), "revision": source.revision})
    return 0


def _tell(progress: Progress) -> None:
    _write(progress)


def _write(record: Any) -> None:
    sys.stdout.write(msgspec.json.encode(record).decode() + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
