"""What comes back when a client asks: answers, pieces, scores, tokens; and what is refused."""

from __future__ import annotations

import math
import sys
import threading
import time

import numpy as np
import pytest
import torch

import llmkernel
from llmkernel.client import questions
from llmkernel.errors import (
    InvalidRequest,
    PromptTooLong,
    RequestTimedOut,
    WorkerNotFound,
)
from tests.conftest import wait_until

pytestmark = pytest.mark.timeout(30)

GREEDY = {"temperature": 0, "max_tokens": 20}


def test_generate_stream_and_token_ids_say_the_same(llm):
    answer = llm.generate("hello", **GREEDY)
    stream = llm.stream("hello", **GREEDY)
    deltas = list(stream)
    assert answer.text == "".join(map(str, deltas)) == stream.generation.text
    assert answer.token_ids == [token for delta in deltas for token in delta.token_ids]
    assert llm.generate(llm.tokenize("hello"), **GREEDY).text == answer.text
    assert stream.generation.usage.completion_tokens == len(answer.token_ids)
    assert stream.generation.finish_reason == answer.finish_reason
    assert answer.timings.decode >= 0
    assert next(stream, None) is None


def test_parameters_come_as_keywords_as_an_object_or_both(llm):
    params = llmkernel.SamplingParams(temperature=0, max_tokens=5)
    assert llm.generate("x", params).text == llm.generate("x", temperature=0, max_tokens=5).text
    short = llm.generate("x", params, ignore_eos=True)
    long = llm.generate("x", params, ignore_eos=True, max_tokens=9)
    assert (len(short.token_ids), len(long.token_ids)) == (5, 9)
    assert long.text.startswith(short.text)


def test_chat_goes_through_the_template(llm):
    turns = [{"role": "user", "content": "hi"}]
    answer = llm.chat(turns, **GREEDY)
    assert answer.text == llm.chat("hi", **GREEDY).text
    assert answer.text == "".join(map(str, llm.stream_chat(turns, **GREEDY)))
    prompt = llm.tokenize(turns)
    assert answer.text == llm.generate(prompt, **GREEDY).text
    begun = [*turns, {"role": "assistant", "content": answer.text[:3]}]
    goes_on = llm.chat(begun, continue_final_message=True, **GREEDY)
    assert goes_on.usage.prompt_tokens == len(prompt) + 3


def test_several_answers(llm):
    answer = llm.generate("x", n=3, temperature=1.0, seed=1, max_tokens=10)
    assert len(answer.samples) == 3
    assert answer.samples[0] is answer
    assert len({sample.text for sample in answer.samples}) > 1
    stream = llm.stream("x", n=3, temperature=1.0, seed=1, max_tokens=10)
    assert {delta.index for delta in stream} == {0, 1, 2}
    assert [s.text for s in stream.generation.samples] == [s.text for s in answer.samples]


def test_best_of_streams_whole_answers_at_the_end(llm):
    stream = llm.stream("x", n=2, best_of=4, temperature=1.0, seed=1, max_tokens=10)
    deltas = list(stream)
    assert [delta.index for delta in deltas] == [0, 1]
    assert [delta.text for delta in deltas] == [s.text for s in stream.generation.samples]
    means = [sample.mean_logprob for sample in stream.generation.samples]
    assert means == sorted(means, reverse=True)


def test_log_probabilities_come_with_their_texts(llm):
    answer = llm.generate("x", logprobs=2, prompt_logprobs=1, **GREEDY)
    assert [entry.token_id for entry in answer.logprobs] == answer.token_ids
    assert "".join(entry.text for entry in answer.logprobs).startswith(answer.text)
    assert all(len(entry.top) <= 2 for entry in answer.logprobs)
    assert answer.prompt_token_ids == llm.tokenize("x")
    assert len(answer.prompt_logprobs) == 2
    assert llm.generate("x", **GREEDY).logprobs is None
    pieces = list(llm.stream("x", logprobs=0, **GREEDY))
    assert all(len(piece.logprobs) == len(piece.token_ids) for piece in pieces)


def test_a_score_is_the_sum_of_its_tokens(llm):
    score = llm.score("hello", top=1)
    assert score.token_ids == llm.tokenize("hello")
    values = [entry.logprob for entry in score.logprobs if entry.logprob is not None]
    assert score.total == pytest.approx(sum(values))
    assert score.mean == pytest.approx(sum(values) / len(values))
    assert score.perplexity == pytest.approx(np.exp(-score.mean))
    given = llm.score("lo", given="hel")
    assert bytes(given.token_ids) == b"lo"
    assert [e.logprob for e in given.logprobs] == [e.logprob for e in score.logprobs[-2:]]


def test_text_to_tokens_and_back(llm):
    ids = llm.tokenize("añ🙂", add_special_tokens=False)
    assert bytes(ids).decode() == "añ🙂"
    assert llm.detokenize(ids) == "añ🙂"
    assert llm.detokenize(np.array([*ids, 257]), skip_special_tokens=True) == "añ🙂"
    assert "<bos>" in llm.detokenize(llm.tokenize(""))
    assert llm.pieces("hi") == [(257, "<bos>"), (104, "h"), (105, "i")]
    assert [piece.token_id for piece in llm.pieces("añ🙂", add_special_tokens=False)] == ids


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda llm: llm.generate("x", temprature=1), "temperature"),
        (lambda llm: llm.generate("x", temperature=-1), "temperature"),
        (lambda llm: llm.generate("x", {"temperature": 1}), "SamplingParams"),
        (lambda llm: llm.generate(""), "empty"),
        (lambda llm: llm.generate(7), "int"),
        (lambda llm: llm.generate(["a", "b"]), "held a str. Many prompts go through map"),
        (lambda llm: llm.generate([[1, 2]]), "held a list. Many prompts go through map"),
        (lambda llm: llm.generate(np.array([[1, 2]])), "held a ndarray. Many prompts"),
        (lambda llm: llm.generate(torch.tensor([[1, 2]])), "such as input_ids[0]"),
        (lambda llm: llm.generate(torch.tensor([1.5])), "held a Tensor."),
        (lambda llm: llm.generate({"input_ids": [1, 2]}), "and got dict"),
        (lambda llm: llm.score(torch.tensor([[1, 2]])), "such as input_ids[0]"),
        (lambda llm: llm.detokenize(np.array([[1, 2]])), "such as input_ids[0]"),
        (lambda llm: llm.generate([1.5]), "float"),
        (lambda llm: llm.generate([True]), "bool"),
        (lambda llm: llm.generate([-1]), "negative"),
        (lambda llm: llm.generate([10**12]), "2^31"),
        (lambda llm: llm.generate(b"bytes"), "bytes"),
        (lambda llm: llm.generate("\ud800"), "surrogate"),
        (lambda llm: llm.generate("x", stop="\ud800"), "surrogate"),
        (lambda llm: llm.generate("x" * (2**21 + 1)), "2097152"),
        (lambda llm: llm.generate("x", timeout=0), "timeout"),
        (lambda llm: llm.generate("x", timeout="1"), "timeout"),
        (lambda llm: llm.generate("x", timeout=math.nan), "timeout"),
        (lambda llm: llm.map(["x"], timeout=-1), "timeout"),
        (lambda llm: llm.generate("x", timeout=float("nan")), "timeout"),
        (lambda llm: llm.chat([]), "empty"),
        (lambda llm: llm.chat({"role": "user"}), "dict"),
        (lambda llm: llm.chat([{"role": "user"}]), "messages[0]"),
        (lambda llm: llm.chat([{"role": "user", "content": ["x"]}]), "content"),
        (lambda llm: llm.chat([{"role": "user", "content": "x", "name": "y"}]), "messages[0]"),
        (lambda llm: llm.stream("x", n=0), "n must be"),
        (lambda llm: llm.map("x"), "generate"),
        (lambda llm: llm.map(["x"], concurrency=0), "concurrency"),
        (lambda llm: llm.tokenize(b"x"), "Expected text or a conversation"),
        (lambda llm: llm.tokenize([1]), "and got list of int"),
        (lambda llm: llm.tokenize(None), "and got NoneType"),
        (lambda llm: llm.tokenize({"role": "user", "content": "x"}), "and got dict"),
        (lambda llm: llm.tokenize([{"role": "user"}]), "messages[0]"),
        (lambda llm: llm.detokenize("abc"), "token ids"),
        (lambda llm: llm.detokenize([5000]), "vocabulary"),
        (lambda llm: llm.score(""), "empty"),
    ],
)
def test_a_mistake_is_refused_in_words(llm, call, words):
    with pytest.raises(InvalidRequest) as caught:
        call(llm)
    assert words in caught.value.message


def test_a_prompt_that_does_not_fit_is_refused_with_both_numbers(llm):
    with pytest.raises(PromptTooLong) as caught:
        llm.generate("x" * 3000)
    assert caught.value.data["limit"] == 2048
    assert caught.value.data["needed"] > 3000


def test_a_timeout_cancels_and_keeps_what_there_is(endless):
    began = time.monotonic()
    with pytest.raises(RequestTimedOut) as caught:
        endless.generate("hello", max_tokens=10_000, timeout=0.5)
    assert 0.5 <= time.monotonic() - began < 1.5
    assert len(caught.value.partial.token_ids) > 30
    assert isinstance(caught.value, TimeoutError)
    with pytest.raises(RequestTimedOut) as caught:
        list(endless.stream("hello", max_tokens=10_000, timeout=0.3))
    assert len(caught.value.partial.text) > 20
    wait_until(lambda: endless.status().load.running == 0, seconds=2, what="both to end")


def test_leaving_a_stream_cancels_it(endless):
    for delta in endless.stream("hello", max_tokens=10_000):
        assert delta.text
        break
    wait_until(lambda: endless.status().load.running == 0, seconds=2, what="the first to end")
    with endless.stream("hello", max_tokens=10_000) as stream:
        first = next(stream)
    assert list(stream) == []
    assert stream.generation.text == first.text
    assert stream.generation.finish_reason == "cancelled"
    wait_until(lambda: endless.status().load.running == 0, seconds=2, what="the second to end")


def test_a_stream_is_cancelled_in_its_repr_when_it_is(endless):
    with endless.stream("x") as stream:
        next(stream)
        assert repr(stream) == f"Stream({stream.generation.text!r}, being written)"
    assert "finish_reason='cancelled'" in repr(stream)


def test_many_threads_may_call_at_once(llm):
    answers: dict[int, str] = {}

    def ask(number):
        answers[number] = llm.generate(f"number {number}", **GREEDY).text

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert answers == {n: llm.generate(f"number {n}", **GREEDY).text for n in range(40)}


def test_a_longer_answer_than_the_credit_window_comes_whole(start_worker):
    model = "scripted:eos_after=100000,context_length=20000,blocks=20000"
    with llmkernel.Client(start_worker(model, name="fast")) as fast:
        stream = fast.stream("hello", max_tokens=5_000)
        time.sleep(0.3)  # nobody reads, and yet it goes on: the link gives the credit
        assert len("".join(map(str, stream))) > 4_900
        assert stream.generation.usage.completion_tokens == 5_000


def test_status_names_and_repr_without_secrets(llm):
    report = llm.status()
    assert (report.name, report.state) == ("scripted", "ready")
    assert llm.name == "scripted"
    assert llm.connection.pid == report.pid
    for shown in (repr(llm), repr(llm.aio), repr(llm.connection)):
        assert "scripted" in shown
        assert llm.connection.client_secret_key not in shown


def test_stop_ends_the_worker_for_everybody(scripted_worker):
    llm = llmkernel.Client(scripted_worker)
    other = llmkernel.connect("scripted")
    other.stop()
    assert not llm.connection.alive
    for client in (llm, other):
        with pytest.raises(WorkerNotFound):
            client.generate("x")


def test_connect_finds_the_only_worker_and_start_attaches_to_it(scripted_worker):
    with llmkernel.connect() as one, llmkernel.start("scripted", progress=False) as other:
        assert one.connection.pid == other.connection.pid == scripted_worker.pid
    assert [worker.name for worker in llmkernel.list_workers()] == ["scripted"]


def test_loading_is_told_to_whoever_asks_and_else_shown_in_bars(runtime_dir, capsys, monkeypatch):
    stages = []
    with llmkernel.start(
        "scripted:load_ms=300",
        name="one",
        on_progress=lambda progress: stages.append(progress.stage),
    ) as one:
        one.stop()
    assert "read" in stages
    with llmkernel.start("scripted:load_ms=300", name="two") as two:
        two.stop()
    assert capsys.readouterr().err == "", "nobody looks at bars in a pipe"
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with llmkernel.start("scripted:load_ms=300", name="three") as three:
        three.stop()
    assert "reading" in capsys.readouterr().err


@pytest.mark.parametrize("said", ["", " \n", [{"role": "user", "content": ""}]])
def test_an_empty_message_is_refused(llm, said):
    with pytest.raises(InvalidRequest, match="The message to answer is empty"):
        llm.chat(said)


def test_connect_without_a_worker_says_so(runtime_dir):
    with pytest.raises(WorkerNotFound):
        llmkernel.connect()


@pytest.mark.parametrize("timeout", [math.inf, 1e10, 1e300])
def test_a_timeout_without_end_is_none(llm, timeout):
    assert llm.generate("x", max_tokens=2, timeout=timeout).token_ids
    assert llm.map(["x"], max_tokens=2, timeout=timeout, progress=False)[0].token_ids


class Odd(int):
    """A number that is no plain int."""


def test_token_ids_are_plain_numbers_in_a_list_of_their_own():
    given = [1, 2, 3]
    assert questions.token_ids(given) == given
    assert questions.token_ids(given) is not given
    for odd in ([Odd(4)], (4,), np.array([4]), [np.int64(4)]):
        assert list(map(type, questions.token_ids(odd))) == [int]
    for bad in ([True], [1.0], [-1], [2**31], [10**30], ["a"]):
        with pytest.raises(InvalidRequest):
            questions.token_ids(bad)
