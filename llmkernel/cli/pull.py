"""`llmkernel pull`."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable
from typing import Any

import click
import msgspec

from llmkernel import environment
from llmkernel.cli import console
from llmkernel.cli.failure import Command
from llmkernel.config import DEMO_MODEL, WorkerConfig
from llmkernel.errors import StartFailed, from_code
from llmkernel.progress import ProgressBar
from llmkernel.protocol import Progress


@click.command("pull", cls=Command)
@click.argument("model", default=DEMO_MODEL)
@click.option("--revision", metavar="TEXT", help="Branch, tag or commit on the hub.")
@click.option(
    "--json", "as_json", is_flag=True, help="NDJSON: the progress, then the folder and commit."
)
def pull_command(model: str, revision: str | None, as_json: bool) -> None:
    """Download a model into the hub's cache, for a start that needs no network.

    MODEL is a hub id; the embedded model, which is there already, where it is left out.
    Takes what a worker will read and no other copy of the weights. HF_TOKEN is used where it
    is set; a download that broke goes on where it was.
    """
    asked = WorkerConfig.build(model=model, revision=revision)  # as a start would be asked
    with ProgressBar() as bar:
        source = _download(asked.model, asked.revision, _record if as_json else bar.show)
    if as_json:
        console.json_line({"type": "done"} | source)
    else:
        console.line(source["folder"])


def _record(progress: Progress) -> None:
    console.json_line({"type": "progress"} | console.plain(progress))


def _download(model: str, revision: str | None, tell: Callable[[Progress], None]) -> dict[str, Any]:
    """Run the download in a process of its own; its last record.

    Raises what the hub's answer means (ModelNotFound, ModelGated, HubUnreachable, …).
    """
    command = [sys.executable, "-P", "-m", "llmkernel.worker.pull", model]
    command += [revision] if revision is not None else []
    with (
        tempfile.TemporaryFile() as words,  # a pipe that nobody reads would fill up and block
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=words, env=environment.for_worker()
        ) as process,
    ):
        try:
            last = _relay(process, tell)
        except BaseException:
            process.kill()  # an interrupt, or a reader of ours that has gone
            raise
        process.wait()
        words.seek(0)
        said = words.read().decode(errors="replace").strip().splitlines()
    if "folder" not in last:
        raise StartFailed(f"The download ended without a word. {said[-1] if said else ''}".strip())
    return last


def _relay(process: subprocess.Popen[bytes], tell: Callable[[Progress], None]) -> dict[str, Any]:
    assert process.stdout is not None, "it is a pipe"
    record: dict[str, Any] = {}
    for text in process.stdout:
        record = msgspec.json.decode(text)
        if "error" in record:
            raise from_code(**record["error"])
        if "folder" not in record:
            tell(msgspec.convert(record, Progress))
    return record
