"""The table of answers that fill at the same time."""

from __future__ import annotations

import io
import sys

import pytest

from llmkernel.cli.board import Board


class Terminal(io.StringIO):
    """Standard output as a terminal."""

    def isatty(self) -> bool:
        return True


def shown_by(written: str) -> list[str]:
    """What stands on a terminal after all cursor movements up and line wipes in `written`."""
    lines, row = [""], 0
    for piece in (
        written.replace("\x1b[K", "").replace("\x1b[2m", "").replace("\x1b[0m", "").split("\n")
    ):
        text = piece
        while text.startswith("\x1b["):
            count, _, text = text[2:].partition("A")
            row -= int(count)
        lines += [""] * (row + 1 - len(lines))
        lines[row] = text
        row += 1
    return lines[:-1]


@pytest.fixture(autouse=True)
def sixty_columns(monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setattr("llmkernel.cli.board._REDRAW_SECONDS", 0.0)


def test_a_terminal_shows_each_answer_growing_in_its_row(monkeypatch):
    monkeypatch.setattr(sys, "stdout", terminal := Terminal())
    board = Board(["first?", "second?"])
    board.add(0, "one ")
    board.add(1, "two")
    assert shown_by(terminal.getvalue())[0].split() == ["1", "first?", "one"]
    board.add(0, "more")
    board.close()
    rows = shown_by(terminal.getvalue())
    assert [row.split() for row in rows] == [
        ["1", "first?", "one", "more"],
        ["2", "second?", "two"],
    ]


def test_a_log_gets_the_end_alone(capsys):
    board = Board(["first?", "second?"])
    board.add(0, "one")
    assert capsys.readouterr().out == ""
    board.close()
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_no_row_is_wider_than_the_terminal(capsys):
    board = Board(["a question that is longer than its column has room for"])
    board.add(0, "an answer\nof many lines " * 10)
    board.close()
    (row,) = capsys.readouterr().out.splitlines()
    assert len(row) < 60
    assert "…" in row
    assert row.endswith("lines")


def test_an_answer_cannot_move_the_cursor(monkeypatch):
    monkeypatch.setattr(sys, "stdout", terminal := Terminal())
    board = Board(["first?"])
    board.add(0, "\x1b[9A")
    board.close()
    assert "\x1b[9A" not in terminal.getvalue()
    assert "␛[9A" in terminal.getvalue()


def test_the_order_is_that_of_the_pieces_once_all_have_begun(capsys):
    board = Board(["a", "b", "c"])
    for row in (0, 1, 0, 2, 1, 0, 2, 1):
        board.add(row, "x")
    assert board.order(3) == "2 1 3"
