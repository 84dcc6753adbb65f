"""Several answers that grow at the same time: a table that fills on a terminal, lines in a log."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Sequence

from llmkernel.cli import console
from llmkernel.printable import printable

_REDRAW_SECONDS = 0.05
_QUESTION = 32


class Board:
    """One row for each question. `add` may be called as often as tokens come."""

    def __init__(self, questions: Sequence[str]) -> None:
        self._questions = questions
        self._texts = [""] * len(questions)
        self._arrivals: list[int] = []
        self._live = sys.stdout.isatty()
        self._drawn = -_REDRAW_SECONDS
        if self._live:
            self._draw()

    def add(self, row: int, text: str) -> None:
        """The answer in `row` goes on."""
        self._texts[row] += text
        self._arrivals.append(row + 1)
        now = time.monotonic()
        if self._live and now - self._drawn > _REDRAW_SECONDS:
            self._drawn = now
            self._move_up()
            self._draw()

    def close(self) -> None:
        """Leave the table with the ends of all answers."""
        if self._live:
            self._move_up()
        self._draw()

    def order(self, count: int) -> str:
        """The rows that the first `count` pieces were for, after each has had its first one."""
        begun = max(self._arrivals.index(row + 1) for row in range(len(self._texts)))
        return " ".join(map(str, self._arrivals[begun + 1 :][:count]))

    def _draw(self) -> None:
        columns = shutil.get_terminal_size().columns
        left = min(_QUESTION, columns // 3)
        room = max(10, columns - left - 6)  # a line that wraps could not be drawn over
        for number, (question, text) in enumerate(
            zip(self._questions, self._texts, strict=True), 1
        ):
            line = " ".join(text.split())
            shown = line if len(line) <= room else "…" + line[1 - room :]
            asked = _cut(question, left).ljust(left)
            # the rest of a longer line drawn before is wiped
            end = "\x1b[K" if self._live else ""
            console.line(f"{number}  {console.dim(asked)}  {printable(shown)}{end}")

    def _move_up(self) -> None:
        console.write(f"\x1b[{len(self._texts)}A")


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"
