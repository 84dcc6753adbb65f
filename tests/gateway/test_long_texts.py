"""What is long is worked on in portions: a text of two megabytes holds up nobody else."""

from __future__ import annotations

import asyncio
import threading
import time
from unittest.mock import Mock

import pytest

from llmkernel import protocol
from llmkernel.gateway.exchange import Exchange
from llmkernel.gateway.tgi.tokens import places

TEXT = "hello " * 60_000
"""As many tokens as characters, since the scripted model reads bytes."""
LONGEST = 0.5
"""Seconds; on a machine that others use. What is done in one go takes one or several."""


async def longest_pause(seconds: float) -> float:
    longest, end = 0.0, time.monotonic() + seconds
    while (before := time.monotonic()) < end:
        await asyncio.sleep(0.005)
        longest = max(longest, time.monotonic() - before - 0.005)
    return longest


@pytest.fixture
def pause(scripted):
    """Call something; returns its answer and how long the loop was held up meanwhile."""

    def measure(act):
        watch = asyncio.run_coroutine_threadsafe(longest_pause(8), scripted.loop)
        answer = act()
        return answer, watch.result(20)

    return measure


def test_the_tokens_of_a_long_text_come_in_portions(scripted, pause):
    answer, held = pause(lambda: scripted.http.post("/tokenize", json={"inputs": TEXT}).content)
    assert answer.count(b'"id":') == len(TEXT) + 1
    assert answer[:1] + answer[-1:] == b"[]"
    assert held < LONGEST


CONVERSATION = {"messages": [{"role": "user", "content": "hello"}]}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/messages/count_tokens", {"model": "scripted", **CONVERSATION}),
        ("/v1/responses/input_tokens", {"model": "scripted", "input": "hello"}),
        ("/apply-template", CONVERSATION),
    ],
)
def test_where_ids_are_enough_no_texts_are_sent(scripted, monkeypatch, path, body):
    """They are most of the worker's answer, which the loop has to read in one go."""
    read, seen = protocol.decode_worker, []
    monkeypatch.setattr(protocol, "decode_worker", lambda data: seen.append(read(data)) or seen[-1])
    assert scripted.post(path, body).status_code == 200
    tokens = [message for message in seen if isinstance(message, protocol.Tokens)]
    assert tokens
    assert all(each.token_ids and not each.texts for each in tokens)


def test_a_long_conversation_is_read_apart(scripted):
    short, long = (
        Exchange(Mock(), scripted.server.gateway, Mock(), Mock(), {}, b" " * size)
        for size in (1000, 1_000_000)
    )

    async def threads():
        work = lambda _: threading.current_thread()  # noqa: E731
        return threading.current_thread(), await short.apart(work, 0), await long.apart(work, 0)

    own, of_short, of_long = asyncio.run(threads())
    assert of_short is own
    assert of_long is not own


@pytest.mark.parametrize(
    "path",
    ["/chat_tokenize", "/apply-template", "/v1/messages/count_tokens", "/v1/chat/completions"],
)
def test_every_route_reads_a_conversation_where_long_ones_are_read_apart(
    scripted, monkeypatch, path
):
    read, seen = Exchange.apart, []
    monkeypatch.setattr(Exchange, "apart", lambda *given: seen.append(given[1]) or read(*given))
    body = {"model": "scripted", **CONVERSATION, "max_tokens": 1}
    if path != "/v1/chat/completions":
        del body["max_tokens"]
    assert scripted.post(path, body).status_code == 200
    assert seen


def test_a_conversation_too_long_for_the_model_is_told_so(scripted):
    turns = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "hi"}] * 15_000
    body = {"model": "scripted", "messages": turns, "max_tokens": 2}
    answer = scripted.post("/v1/chat/completions", body)
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "context_length_exceeded"


def test_a_short_list_has_a_length(scripted):
    answer = scripted.post("/tokenize", {"inputs": "hi"})
    assert answer.headers["Content-Length"] == str(len(answer.content))
    assert [token["text"] for token in answer.json()] == ["", "h", "i"]


@pytest.mark.parametrize("count", [249, 250, 251, 500, 501])
def test_portions_make_one_list(scripted, count):
    tokens = scripted.post("/tokenize", {"inputs": "x" * count}).json()
    assert [token["start"] for token in tokens[1:]] == list(range(count))
    turns = [{"role": "user", "content": "x" * count}]
    answer = scripted.post("/chat_tokenize", {"messages": turns}).json()
    assert set(answer) == {"tokenize_response", "templated_text"}
    assert "x" * count in answer["templated_text"]


def test_tokens_that_are_not_in_the_text_are_not_each_the_whole_rest():
    """As with a tokenizer that changes letters: the answer would have a terabyte."""
    text = "hello " + "WORLD " * 1000
    found = list(places(text, range(1001), ["hello", *[" world"] * 1000]))
    assert sum(len(token.text) for token in found) < 10_000
