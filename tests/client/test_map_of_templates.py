"""Maps over data: a template for each item, and a file that a run which was cut short goes on from."""

from __future__ import annotations

import dataclasses
import json
import resource
import signal

import pandas as pd
import pytest

from llmkernel.client.mapping import TqdmBar, prompts
from llmkernel.errors import InvalidRequest

pytestmark = pytest.mark.timeout(60)

GREEDY = {"temperature": 0, "max_tokens": 12, "progress": False}


def done(llm):
    return llm.status().load.requests_finished


def test_a_column_becomes_a_column_of_answers(llm):
    frame = pd.DataFrame({"text": ["one", None, "three"]}, index=[3, 5, 8])
    frame["out"] = llm.map(frame["text"], template="Summarise: {{ value }}", **GREEDY)
    asked = llm.chat("Summarise: three", temperature=0, max_tokens=12)
    assert str(frame["out"][8]) == asked.text
    assert isinstance(frame["out"][5], InvalidRequest)


def test_a_template_takes_parts_of_an_item_and_braces_in_it_stay(llm):
    items = [{"name": "Ann", "note": "{{ value }}"}]
    template = "{x} {{ value.name }}: {{value['note']}}"
    (answer,) = llm.map(items, template=template, **GREEDY)
    asked = llm.chat("{x} Ann: {{ value }}", temperature=0, max_tokens=12)
    assert answer.text == asked.text


@pytest.mark.parametrize(
    ("template", "says"),
    [("no place", "no {{ value }}"), ("{{ other }}", "cannot be filled"), (3, "must be text")],
)
def test_a_template_that_cannot_be_filled_is_refused_before_anything_is_asked(llm, template, says):
    before = done(llm)
    with pytest.raises(InvalidRequest, match=says):
        llm.map(["a"], template=template, **GREEDY)
    assert done(llm) == before


def test_a_run_that_was_interrupted_goes_on_where_it_was(llm, tmp_path):
    file = tmp_path / "answers.jsonl"
    prompts = [f"number {number}" for number in range(40)]
    seen = []

    def interrupt_in_the_middle(result):
        seen.append(result)
        if len(seen) == 15:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        llm.map(
            prompts,
            checkpoint=file,
            concurrency=4,
            **GREEDY | {"progress": interrupt_in_the_middle},
        )
    kept = len(file.read_text().splitlines())
    assert kept >= 15
    before = done(llm)
    answers = llm.map(prompts, checkpoint=file, **GREEDY)
    assert done(llm) - before == 40 - kept
    assert [str(answer) for answer in answers] == [str(one) for one in llm.map(prompts, **GREEDY)]


def test_other_prompts_or_parameters_are_asked_again(llm, tmp_path):
    file = tmp_path / "answers.jsonl"
    llm.map(["a", "b"], checkpoint=file, **GREEDY)
    before = done(llm)
    llm.map(["a", "c"], checkpoint=file, **GREEDY)
    assert done(llm) - before == 1
    llm.map(["a"], checkpoint=file, **GREEDY | {"max_tokens": 3})
    assert done(llm) - before == 2


def test_a_line_that_was_cut_off_is_asked_again(llm, tmp_path):
    file = tmp_path / "answers.jsonl"
    whole = llm.map(
        ["a", "b"], checkpoint=file, temperature=0, max_tokens=5, logprobs=2, progress=False
    )
    file.write_bytes(file.read_bytes()[:-20])
    again = llm.map(
        ["a", "b"], checkpoint=file, temperature=0, max_tokens=5, logprobs=2, progress=False
    )
    # figures and log-probabilities included
    assert dataclasses.asdict(again[0]) == dataclasses.asdict(whole[0])
    assert (again[1].token_ids, again[1].text) == (whole[1].token_ids, whole[1].text)
    lines = file.read_text().splitlines()
    assert len(lines) == 2
    assert all(json.loads(line) for line in lines)


def test_failures_are_not_kept(llm, tmp_path):
    file = tmp_path / "answers.jsonl"
    answers = llm.map(["a", ""], checkpoint=file, **GREEDY)
    assert isinstance(answers[1], InvalidRequest)
    assert len(file.read_text().splitlines()) == 1


def test_another_file_is_not_written_over(llm, tmp_path):
    file = tmp_path / "notes.txt"
    file.write_text("my notes\n")
    with pytest.raises(InvalidRequest, match=r"Line 1 of notes\.txt"):
        llm.map(["a"], checkpoint=file, **GREEDY)
    assert file.read_text() == "my notes\n"


def test_a_checkpoint_that_cannot_be_written_says_so_and_how_to_go_on(llm, tmp_path):
    file = tmp_path / "answers.jsonl"
    llm.map(["a"], checkpoint=file, **GREEDY)
    size = file.stat().st_size
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # an error, and no end of this process
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 20, limits[1]))
    try:
        with pytest.raises(InvalidRequest, match=r"answers\.jsonl cannot be written: .* goes on"):
            llm.map(["a", "b", "c"], checkpoint=file, **GREEDY)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    assert llm.status().load.running == 0
    assert [str(one) for one in llm.map(["a", "b"], checkpoint=file, **GREEDY)]
    assert len(file.read_text().splitlines()) == 2


def test_a_checkpoint_is_a_file_and_nothing_that_never_ends(llm):
    with pytest.raises(InvalidRequest, match="zero is no regular file"):
        llm.map(["a"], checkpoint="/dev/zero", **GREEDY)


def test_the_rows_of_a_frame_fill_a_template_and_keep_its_index(llm):
    frame = pd.DataFrame({"city": ["Rome", "Oslo", None], "a b": [1, 2, 3]}, index=["r", "r", "s"])
    answers = llm.map(frame, template="{{ value.city }} {{ value['a b'] }}", **GREEDY)
    assert list(answers.index) == ["r", "r", "s"]
    alone = llm.chat("Rome 1", temperature=0, max_tokens=GREEDY["max_tokens"])
    assert answers.iloc[0].text == alone.text
    assert "no 'city'" in str(answers.iloc[2])
    frame["answer"] = answers
    with pytest.raises(InvalidRequest, match="a column"):
        llm.map(frame, **GREEDY)


def test_the_bar_of_a_run_that_goes_on_counts_its_speed_from_there(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("tqdm.std.time", lambda: now[0])
    bar = TqdmBar(1000)
    monkeypatch.setattr(bar._bar, "_time", lambda: now[0])
    for _ in range(900):
        bar.known()
    for _ in range(10):
        now[0] += 2.0
        bar.step(None)
    facts = bar._bar.format_dict
    assert (facts["n"], facts["initial"]) == (910, 900)
    assert 0.4 < (facts["rate"] or (facts["n"] - facts["initial"]) / facts["elapsed"]) < 0.6
    bar.close()


@pytest.mark.parametrize("names", [["text", "text"], [1, "1"]])
def test_a_frame_with_two_columns_of_one_name_is_refused(names):
    frame = pd.DataFrame([["first", "second"]], columns=names)
    with pytest.raises(InvalidRequest, match=rf"several columns '{names[1]}'"):
        prompts(frame, template=True)
