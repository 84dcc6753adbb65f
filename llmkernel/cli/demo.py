"""`llmkernel demo`: the main job on the embedded model, start to end, in under a minute."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

import llmkernel
from llmkernel.cli import answers, console
from llmkernel.cli.board import Board
from llmkernel.cli.failure import Command
from llmkernel.config import DEMO_MODEL, WorkerConfig
from llmkernel.progress import ProgressBar
from llmkernel.report import ask, headline

if TYPE_CHECKING:
    from llmkernel.client import Client
    from llmkernel.protocol import Load

NAME = "demo-tour"
QUESTIONS = (
    "What is llmkernel?",
    "How do I stop a running cell?",
    "What is 17 + 25?",
)
TOGETHER = (
    "Tell me a tiny story about a robot.",
    "How do I load a model in 4 bits?",
    "Tell me a tiny story about a cat.",
    "Write a Python function that adds two numbers.",
    "What is continuous batching?",
    "How do I see which workers run?",
    "Tell me a tiny story about the sea.",
    "What does temperature do?",
)
NEW_TOKENS = 120


@click.command("demo", cls=Command)
def demo_command() -> None:
    """Show the whole thing on the embedded model: answers, a batch, figures.

    Starts a worker of its own, named demo-tour, and stops it in the end unless it ran before.
    """
    from llmkernel import connection, launcher
    from llmkernel.client import Client

    ran_before = connection.running(NAME) is not None
    _title("llmkernel: one model in memory, for everything on this machine")
    console.line("Starting a worker with the embedded model; nothing is downloaded.")
    began = time.monotonic()
    with ProgressBar() as bar:
        worker = launcher.start(
            WorkerConfig.build(name=NAME, model=DEMO_MODEL), on_progress=bar.show
        )
    try:
        verb = "Attached" if ran_before else "Ready"
        console.line(f"{verb} after {time.monotonic() - began:.1f} s: {headline(ask(worker))}")
        with Client(worker) as client:
            _answer(client)
            _batch(client)
    finally:
        if not ran_before:
            launcher.stop(worker, drain=False)
    console.line("\n" + _whereto(stopped=not ran_before))


def _answer(client: Client) -> None:
    _title("Answers, token by token")
    for question in QUESTIONS:
        console.line(console.bold(f"> {question}"))
        stream = client.stream_chat(question, temperature=0, max_tokens=NEW_TOKENS)
        answers.write_stream(stream)
        done = stream.generation
        console.line(console.dim(f"  {answers.statistics(done.usage, done.timings)}") + "\n")


def _batch(client: Client) -> None:
    _title(f"{len(TOGETHER)} questions at once, decoding in one batch")
    before = client.status().load
    board = Board(TOGETHER)
    began = time.perf_counter()
    asyncio.run(_together(client, board))
    seconds = time.perf_counter() - began
    board.close()
    console.line(f"\n  {_summary(before, client.status().load, seconds)}")
    console.line(f"  Pieces arrived for question {board.order(24)} …")


async def _together(client: Client, board: Board) -> None:
    async def one(row: int, question: str) -> None:
        stream = client.aio.stream_chat(question, temperature=0, max_tokens=NEW_TOKENS)
        async for delta in stream:
            board.add(row, delta.text)

    await asyncio.gather(*(one(row, question) for row, question in enumerate(TOGETHER)))


def _summary(before: Load, after: Load, seconds: float) -> str:
    tokens = after.tokens_generated - before.tokens_generated
    steps = after.steps - before.steps
    return f"{tokens} tokens in {seconds:.2f} s: {tokens / seconds:.0f} tokens/s, from {steps} steps of the model"


def _title(text: str) -> None:
    console.line("\n" + console.bold(f"── {text} ".ljust(78, "─")) + "\n")


def _whereto(*, stopped: bool) -> str:
    state = "The worker is stopped, its memory given back." if stopped else "The worker stays."
    notebook = Path(llmkernel.__file__).parents[1] / "notebooks" / "01_quickstart.ipynb"
    lab = _shown(Path(sys.executable).with_name("jupyter"))
    if notebook.exists():
        return f"{state} Next, the quickstart notebook:\n\n    {lab} lab {_shown(notebook)}"
    return f"{state} Next, in a notebook: %load_ext llmkernel\n\n    {lab} lab"


def _shown(path: Path) -> str:
    """A path as one would type it from here."""
    if path.name == shutil.which(path.name) or shutil.which(path.name) == str(path):
        return path.name
    near = os.path.relpath(path)
    return str(path) if near.startswith("..") else near
