"""What the commands here share: how they end, and their options."""

from __future__ import annotations

import argparse
import re
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn

from benchmarks import results
from llmkernel.errors import LLMKernelError

_WRONG, _INTERRUPTED = 2, 130


class Refused(Exception):
    """What was asked for cannot be measured; the message says why, and what to do."""


def run(main: Callable[[], int | None]) -> NoReturn:
    """End the process as `main` says; with one line for what it or a worker refuses."""
    try:
        with _ended_by_exit():
            code = main() or 0
    except (Refused, LLMKernelError) as error:
        sys.stderr.write(f"Error: {error}\n")
        code = _WRONG
    except KeyboardInterrupt:
        code = _INTERRUPTED
    sys.exit(code)


@contextmanager
def _ended_by_exit() -> Iterator[None]:
    """SIGTERM raises SystemExit in here."""
    before = signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def numbers(text: str) -> list[int]:
    """Of "1,2,4", for argparse; they are 1 and more. Raises ArgumentTypeError for others."""
    if not re.fullmatch(r"[1-9]\d*(,[1-9]\d*)*", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no list of numbers such as 1,8,32")
    return [int(part) for part in text.split(",")]


def positive(text: str) -> int:
    """A number from 1 on, for argparse. Raises ArgumentTypeError for others."""
    if not re.fullmatch(r"[1-9]\d*", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 on")
    return int(text)


def parser(description: str | None) -> argparse.ArgumentParser:
    """A parser that knows `--save`; what it is for is the first line of `description`."""
    made = argparse.ArgumentParser(description=(description or "").splitlines()[0])
    made.add_argument(
        "--save",
        type=results.folder,
        nargs="?",
        const=results.FOLDER,
        metavar="FOLDER",
        help="write a JSON file, into benchmarks/results/ where no folder is named",
    )
    return made
