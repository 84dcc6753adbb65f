"""What commands print: untrusted text, tables, numbers for people, JSON for scripts."""

from __future__ import annotations

import io
import json
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmkernel import units
from llmkernel.cli import console
from llmkernel.protocol import Load, Usage


class Terminal(io.StringIO):
    """Standard output as a terminal."""

    def isatty(self) -> bool:
        return True


class ClosedPipe(io.StringIO):
    """Standard output whose reader has gone."""

    def write(self, text: str) -> int:
        raise BrokenPipeError


@given(st.text())
def test_nothing_that_a_terminal_obeys_survives(text):
    shown = console.printable(text)
    left = {c for c in shown if ord(c) < 0x20 or 0x7F <= ord(c) < 0xA0} - {"\n", "\t"}
    assert left == set()
    assert not {c for c in shown if "\u202a" <= c <= "\u202e" or "\u2066" <= c <= "\u2069"}


def test_an_escape_sequence_is_shown_and_not_obeyed():
    assert console.printable("\x1b]0;title\x07\x1b[2J") == "␛]0;title␇␛[2J"


def test_a_carriage_return_cannot_overwrite_the_line():
    assert console.printable("rm -rf /\rls") == "rm -rf /ls"


def test_ordinary_text_of_any_language_stays_as_it_is():
    text = "naïve 日本語 🙂\n\tnaïveté"
    assert console.printable(text) == text


def test_text_of_a_model_is_neutralised_on_a_terminal_only(monkeypatch):
    for stream, expected in ((Terminal(), "␛[31m"), (io.StringIO(), "\x1b[31m")):
        monkeypatch.setattr(sys, "stdout", stream)
        console.write("\x1b[31m", untrusted=True)
        assert stream.getvalue() == expected


def test_a_reader_that_has_gone_is_its_own_kind_of_end(monkeypatch):
    monkeypatch.setattr(sys, "stdout", ClosedPipe())
    with pytest.raises(console.PipeClosed):
        console.line("text")


def test_json_has_every_field_defaults_too(capsys):
    console.json_line({"usage": Usage(prompt_tokens=3), "n": float("nan"), 1: (Load(),)})
    found = json.loads(capsys.readouterr().out)
    assert found["usage"] == {"prompt_tokens": 3, "cached_tokens": 0, "completion_tokens": 0}
    assert found["n"] is None
    assert found["1"][0]["running"] == 0


def test_json_takes_one_line_whatever_the_text(capsys):
    console.json_line({"text": "a\nb\u2028c\x1b"})
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    assert json.loads(out) == {"text": "a\nb\u2028c\x1b"}


def test_columns_are_as_wide_as_their_widest_entry(capsys):
    console.table(("name", "pid"), [("demo", "7"), ("a-long-name", "12345")])
    assert capsys.readouterr().out.splitlines() == [
        "name           pid",
        "demo             7",
        "a-long-name  12345",
    ]


def test_a_table_without_rows_has_its_heading(capsys):
    console.table(("name", "pid"), [])
    assert capsys.readouterr().out == "name  pid\n"


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1500, "1.5 kB"),
        (622_000_000, "622 MB"),
        (7_700_000_000, "7.7 GB"),
        (5 * 10**15, "5000 TB"),
        (None, "-"),
    ],
)
def test_bytes_for_people(count, text):
    assert units.size(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (119, "119 s"), (150, "2 min"), (18_720, "5 h 12 min"), (180_000, "2 d 2 h")],
)
def test_seconds_for_people(seconds, text):
    assert units.duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"), [(12, "12"), (5_100, "5.1 k"), (124_000_000, "124 M"), (8 * 10**9, "8.0 B")]
)
def test_counts_for_people(count, text):
    assert units.number(count) == text
