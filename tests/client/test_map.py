"""Many prompts at once: order, failures in place, containers, room for others, interrupts."""

from __future__ import annotations

import io
import json

import pandas as pd
import pytest

import llmkernel
from llmkernel.client.generation import Generation
from llmkernel.errors import (
    InvalidRequest,
    NumericalError,
    PromptTooLong,
    RequestTimedOut,
)
from tests.conftest import wait_until

pytestmark = pytest.mark.timeout(60)

GREEDY = {"temperature": 0, "max_tokens": 12, "progress": False}


def texts(answers):
    return [answer.text for answer in answers]


def test_answers_come_in_the_order_of_their_prompts(llm):
    prompts = [f"prompt {number}" for number in range(300)]
    answers = llm.map(prompts, **GREEDY)
    some = range(0, 300, 50)
    assert [answers[number].text for number in some] == [
        llm.generate(prompts[number], temperature=0, max_tokens=12).text for number in some
    ]
    assert len(set(texts(answers))) > 250


@pytest.mark.parametrize("container", [list, tuple, iter, lambda prompts: (x for x in prompts)])
def test_any_iterable_will_do(llm, container):
    prompts = ["a", "b", "c"]
    assert texts(llm.map(container(prompts), **GREEDY)) == texts(llm.map(prompts, **GREEDY))


def test_a_mapping_is_refused(llm):
    with pytest.raises(InvalidRequest, match="dict"):
        llm.map({"a": 1}, **GREEDY)


def test_nothing_gives_nothing(llm):
    assert llm.map([], **GREEDY) == []


def test_a_series_comes_back_with_its_index(llm):
    series = pd.Series(["a", None, "c"], index=["x", "y", "z"], name="answers")
    answers = llm.map(series, **GREEDY)
    assert isinstance(answers, pd.Series)
    assert list(answers.index) == ["x", "y", "z"]
    assert answers.name == "answers"
    assert isinstance(answers["y"], InvalidRequest)
    assert answers["z"].text == llm.generate("c", temperature=0, max_tokens=12).text


def test_the_answers_to_a_column_are_a_column_of_text(llm):
    frame = pd.DataFrame({"text": ["a", "b", "a"], "n": [1, 2, 3]})
    frame["s"] = llm.map(frame["text"], **GREEDY)
    first, second = (llm.generate(text, temperature=0, max_tokens=12).text for text in "ab")
    assert frame["s"].str.len().tolist() == [len(first), len(second), len(first)]
    assert (frame["s"] == first).tolist() == [True, False, True]
    assert frame.groupby("s")["n"].sum().to_dict() == {first: 4, second: 2}
    assert json.loads(frame.to_json())["s"] == {"0": first, "1": second, "2": first}
    assert frame["s"].value_counts()[first] == 2
    assert frame.merge(frame, on="s").shape[0] == 5
    assert pd.read_csv(io.StringIO(frame.to_csv()))["s"].tolist() == [first, second, first]
    assert frame["s"][0].usage.completion_tokens == len(frame["s"][0].token_ids) > 0
    assert "".join(llm.map(["a", "b"], **GREEDY)) == first + second


def test_an_answer_is_a_prompt_and_a_turn_and_a_text_to_score(llm):
    answer = llm.generate("a", temperature=0, max_tokens=12)
    text = answer.text
    assert llm.generate(answer, temperature=0) == llm.generate(text, temperature=0)
    turns = [
        [{"role": "assistant", "content": said}, {"role": "user", "content": said}]
        for said in (answer, text)
    ]
    ours, plain = (llm.chat(each, temperature=0) for each in turns)
    assert ours == plain
    assert ours.usage.prompt_tokens == plain.usage.prompt_tokens
    assert llm.map([answer], **GREEDY) == llm.map([text], **GREEDY)
    assert llm.tokenize(answer) == llm.tokenize(text)
    assert llm.score(answer).total == llm.score(text).total
    with pytest.raises(InvalidRequest, match="generate"):
        llm.map(answer, **GREEDY)


def test_a_prompt_may_be_text_ids_or_a_conversation(llm):
    turns = [{"role": "user", "content": "hi"}]
    answers = llm.map(["hi", llm.tokenize("hi"), turns], **GREEDY)
    assert answers[0].text == answers[1].text
    assert answers[2].text == llm.chat(turns, temperature=0, max_tokens=12).text


def test_a_failure_stays_in_its_place(start_worker):
    with llmkernel.Client(start_worker("scripted:nan_for=poison", name="nan")) as llm:
        prompts = ["a", "", "poison", "x" * 3000, 7, "b"]
        answers = llm.map(prompts, **GREEDY)
    kinds = [type(answer) for answer in answers]
    assert kinds == [
        Generation,
        InvalidRequest,
        NumericalError,
        PromptTooLong,
        InvalidRequest,
        Generation,
    ]


def test_where_the_queue_is_full_prompts_are_sent_again(start_worker):
    worker = start_worker("scripted:step_ms=2", name="tight", queue=2, max_concurrent=2)
    with llmkernel.Client(worker) as llm:
        answers = llm.map(["a"] * 60, concurrency=30, **GREEDY)
    assert {type(answer) for answer in answers} == {Generation}


def test_each_prompt_has_its_own_time(endless):
    answers = endless.map(["a", "b"], max_tokens=10_000, temperature=0, timeout=0.5, progress=False)
    assert [type(answer) for answer in answers] == [RequestTimedOut] * 2
    assert all(len(answer.partial.text) > 10 for answer in answers)
    wait_until(lambda: endless.status().load.running == 0, seconds=2, what="both to end")


def test_a_worker_that_dies_fails_what_is_left_in_place(start_worker):
    worker = start_worker("scripted:step_ms=2,die_at_step=60", name="dies", max_concurrent=4)
    with llmkernel.Client(worker) as llm:
        answers = llm.map([f"{n}" for n in range(40)], ignore_eos=True, **GREEDY)
    assert len(answers) == 40
    failed = [answer for answer in answers if not isinstance(answer, Generation)]
    assert failed
    assert all(isinstance(error, llmkernel.errors.LLMKernelError) for error in failed)
    assert len(failed) < 40


def test_prompts_that_break_off_cancel_the_rest(endless):
    def prompts():
        yield "a"
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        endless.map(prompts(), max_tokens=10_000, progress=False)
    wait_until(lambda: endless.status().load.running == 0, seconds=2, what="the first to end")


def test_progress_shows_a_bar_with_failures(llm, capsys):
    llm.map(["a", "", "b"], temperature=0, max_tokens=2)
    shown = capsys.readouterr().err
    assert "3/3" in shown
    assert "failed=1" in shown
    llm.map(["a"], temperature=0, max_tokens=2, progress=False)
    assert capsys.readouterr().err == ""
