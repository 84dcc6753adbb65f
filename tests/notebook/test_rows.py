"""What a loop goes over, and what its answers come back in."""

from __future__ import annotations

import itertools
from collections import UserDict

import pandas as pd
import pytest

from llmkernel.client.generation import generation
from llmkernel.errors import InvalidRequest, NumericalError
from llmkernel.notebook import rows
from llmkernel.notebook.batch import result_table
from llmkernel.notebook.counting import line
from llmkernel.notebook.prompt import fill
from llmkernel.notebook.tables import PLAIN
from llmkernel.protocol import Output, Timings, Usage

FRAME = pd.DataFrame({"items": ["p", "q", "r"], "n": [1, 2, 3]}, index=["x", "y", "z"])


def answer(*texts):
    outputs = [Output(index=n, text=text) for n, text in enumerate(texts)]
    return generation(outputs, Usage(), Timings())


def test_a_row_has_its_columns_by_name_even_where_a_dict_has_a_method():
    (row, *_) = rows.items_of(FRAME, "FRAME")
    assert fill("{{ row.items }} {{ row['n'] }} {{ row.keys() | list }}", {"row": row}) == (
        "p 1 ['items', 'n']"
    )


def test_columns_of_the_same_name_are_refused():
    frame = pd.DataFrame([[1, 2, 3]], columns=["a", "b", "a"])
    with pytest.raises(InvalidRequest, match="df has several columns 'a'"):
        rows.items_of(frame, "df")


def test_a_text_and_a_number_are_no_list():
    for value in ("abc", b"abc", 5):
        with pytest.raises(InvalidRequest, match="goes over a list"):
            rows.items_of(value, "value")
    with pytest.raises(InvalidRequest, match="value is of type int"):
        rows.items_of(5, "value")
    assert rows.items_of({"a": 1}, "value") == ["a"]


def test_what_has_no_end_is_refused():
    with pytest.raises(InvalidRequest, match="100,000 items at most, and count\\(\\) has more"):
        rows.items_of(itertools.count(), "count()")
    assert len(rows.items_of(range(rows.MOST_ITEMS), "range")) == rows.MOST_ITEMS


def test_the_answers_to_a_frame_are_a_frame_with_its_index():
    failed = NumericalError("no number")
    found = rows.collected(FRAME, [answer("a"), failed], [answer("a"), failed])
    assert list(found.index) == ["x", "y", "z"]
    assert list(found["answer"]) == ["a", None, None]
    assert list(found["error"]) == [None, "NumericalError: no number", None]
    assert list(found.columns) == ["answer", "error"]
    assert found["answer"]["x"].finish_reason == "stop"


def test_values_stand_beside_what_they_were_read_out_of():
    failed = NumericalError("no number")
    found = rows.collected(FRAME, [answer("[1]"), failed], [[1], failed], parsed=True)
    assert list(found.columns) == ["answer", "error", "generation"]
    assert list(found["answer"]) == [[1], None, None]
    assert found["generation"]["x"].text == "[1]"
    assert found["generation"]["z"] is None


def test_values_of_json_and_several_answers_stay_what_they_are():
    found = rows.collected(
        FRAME[:2], [answer("{}"), answer("a", "b")], [{"k": [1]}, answer("a", "b")]
    )
    assert list(found["answer"]) == [{"k": [1]}, ["a", "b"]]


def test_other_containers():
    series = FRAME["n"]
    found = rows.collected(series, [answer("a")], [answer("a")])
    assert list(found.index) == ["x", "y", "z"]
    assert found.name == "n"
    assert rows.collected([1, 2], [answer("a")], ["a"]) == ["a"]


def test_the_table_has_the_index_and_the_fields_of_a_row():
    items = rows.items_of(FRAME, "FRAME")
    labels = rows.labels_of(FRAME, 3)
    shown = result_table("row", items, [answer("a"), NumericalError("no number"), None], labels)
    lines = shown[PLAIN].splitlines()
    assert lines[1].split() == ["x", "items:", "p,", "n:", "1", "a"]
    assert "⚠ NumericalError: no number" in lines[2]
    assert "1 failed" in shown[PLAIN]
    assert "(1 answer)" in result_table("x", ["a"], [answer("b")])[PLAIN]


class Mute:
    def __str__(self) -> str:
        raise RuntimeError("no words")


class Torn(UserDict):
    def items(self):
        raise OSError("gone")


def test_an_item_that_cannot_say_what_it_is_costs_no_answer():
    items = [Mute(), {"a": Mute(), "b": 1}, Torn()]
    shown = result_table("x", items, [answer("one"), answer("two"), None])[PLAIN].splitlines()
    assert "(Mute: its text raised RuntimeError)" in shown[1]
    assert "a: (Mute: its text" in shown[2]
    assert "(Torn: its text raised OSError)" in shown[3]
    assert [line.split()[-1] for line in shown[1:3]] == ["one", "two"]
    assert rows.labels_of(pd.Series([1], index=[Mute()]), 1) == [
        "(Mute: its text raised RuntimeError)"
    ]


def test_answers_to_a_frame_whose_labels_are_not_unique():
    frame = pd.DataFrame({"n": [1, 2]}, index=["x", "x"])
    found = rows.collected(frame, [answer("a"), answer("b")], [answer("a"), answer("b")])
    assert list(found["answer"]) == ["a", "b"]


def test_the_bar_says_how_fast_and_how_long():
    assert line(0, 8, 0, 0.0) == "░" * 24 + " 0 of 8 answered"
    assert (
        line(2, 8, 1, 4.0)
        == "█" * 6 + "░" * 18 + " 2 of 8 answered · 1 failed · 0.5 a second · 12 s left"
    )
    assert line(0, 0, 0, 1.0).endswith("0 of 0 answered")


def test_the_bar_does_not_take_what_was_known_for_speed():
    assert line(5000, 10_000, 0, 1.0, 5000).endswith("5000 of 10000 answered · 5000 known before")
    assert line(5010, 10_000, 0, 10.0, 5000).endswith("known before · 1.0 a second · 83 min left")
    assert line(8, 8, 0, 4.0).endswith("8 of 8 answered · 2.0 a second")
    assert line(8, None, 1, 4.0) == "8 answered · 1 failed · 2.0 a second"
