"""How far a model is loaded, in one line."""

from __future__ import annotations

import pytest

from llmkernel.notebook.progress import line
from llmkernel.protocol import Progress


@pytest.mark.parametrize(
    ("progress", "shown"),
    [
        (Progress(stage="resolve"), "finding the model …"),
        (Progress(stage="resolve", detail="a\x1b[31m/b"), "finding the model a/b …"),
        (Progress(stage="download", done=5_000_000, unit="bytes"), "downloading: 5.0 MB"),
        (
            Progress(stage="download", done=1_500_000, total=3_000_000, unit="bytes"),
            "downloading ████████████░░░░░░░░░░░░  50%  1.5 MB of 3.0 MB",
        ),
        (
            Progress(stage="read", done=3, total=4, unit="tensors"),
            "reading ██████████████████░░░░░░  75%  3 of 4 tensors",
        ),
        (
            Progress(stage="quantise", done=9, total=4),
            "quantising ████████████████████████ 100%  9 of 4",
        ),
    ],
)
def test_there_is_a_bar_where_the_end_is_known(progress, shown):
    assert line(progress) == shown
