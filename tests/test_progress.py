"""How far a model is loaded, as a terminal shows it."""

from __future__ import annotations

import io
import re
from contextlib import redirect_stderr

from llmkernel.progress import ProgressBar
from llmkernel.protocol import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True

    def lines(self) -> list[str]:
        """What was to be seen, one line after the other."""
        return [line.strip() for line in re.split(r"[\r\n]", self.getvalue()) if line.strip()]


def test_a_stage_without_anything_to_count_is_words():
    with redirect_stderr(Terminal()) as terminal, ProgressBar() as bar:
        bar.show(Progress(stage="resolve", detail="some/model"))
        bar.show(Progress(stage="read", unit="tensors"))
    begun = "finding the model …"
    assert set(terminal.lines()) == {begun, "finding the model, some/model …", "reading …"}


def test_what_is_counted_has_a_number_and_where_the_end_is_known_a_bar():
    with redirect_stderr(Terminal()) as terminal, ProgressBar() as bar:
        bar.show(Progress(stage="read", unit="tensors"))
        bar.show(Progress(stage="read", done=7, unit="tensors"))
        assert "reading: 7 tensors" in terminal.lines()[-1]
        bar.show(Progress(stage="read", done=7, total=14, unit="tensors"))
        assert terminal.lines()[-1].startswith("reading:  50%")
        assert "7/14" in terminal.lines()[-1]
