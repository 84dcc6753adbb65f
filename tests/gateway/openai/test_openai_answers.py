"""Answers in OpenAI's shapes; the chunks of a stream put together are the whole answer."""

from __future__ import annotations

import math

import msgspec
from hypothesis import given

from llmkernel.gateway.openai import chat_answer, completion_answer
from llmkernel.gateway.openai.chat_stream import ChatStream
from llmkernel.gateway.openai.completion_log_probabilities import lists
from llmkernel.gateway.openai.completion_stream import CompletionStream
from llmkernel.gateway.translation.log_probabilities import entries
from llmkernel.gateway.translation.naming import Head
from llmkernel.protocol import Output, TopToken
from tests.gateway.bodies_of import answered, said, streamed, token

HEAD = Head("id", "model", 12)


def plain(value):
    return msgspec.json.decode(msgspec.json.encode(value))


def test_a_chat_completion():
    answer = plain(chat_answer.answer(HEAD, said("hello", finish_reason="length")))
    assert answer["object"] == "chat.completion"
    assert (answer["id"], answer["model"], answer["created"]) == ("id", "model", 12)
    assert answer["choices"] == [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "hello", "refusal": None},
            "logprobs": None,
            "finish_reason": "length",
        }
    ]
    assert answer["usage"] == {
        "prompt_tokens": 7,
        "completion_tokens": 5,
        "total_tokens": 12,
        "prompt_tokens_details": {"cached_tokens": 3},
    }


def test_log_probabilities_of_a_chat():
    scored = [token("a", -0.5, ("a", -0.5), ("b", -1.5)), token("\ufffd", -math.inf)]
    first, second = plain(entries(scored))
    assert first == {
        "token": "a",
        "logprob": -0.5,
        "bytes": [97],
        "top_logprobs": [
            {"token": "a", "logprob": -0.5, "bytes": [97]},
            {"token": "b", "logprob": -1.5, "bytes": [98]},
        ],
    }
    assert (second["logprob"], second["bytes"]) == (-9999.0, None)


@given(streamed())
def test_the_chunks_of_a_chat_are_its_answer(given):
    deltas, whole = given
    stream = ChatStream(HEAD, include_usage=True)
    chunks = [plain(chunk) for delta in deltas for chunk in stream.delta(delta)]
    chunks += plain(stream.end(whole))
    expected = plain(chat_answer.answer(HEAD, whole))
    *parts, last = chunks
    assert (last["choices"], last["usage"]) == ([], expected["usage"])
    assert all(part["usage"] is None for part in parts)
    choices = [choice for part in parts for choice in part["choices"]]
    for choice in expected["choices"]:
        own = [each for each in choices if each["index"] == choice["index"]]
        assert own[0]["delta"] == {"role": "assistant", "content": ""}
        text = "".join(each["delta"].get("content", "") for each in own)
        assert text == choice["message"]["content"]
        assert [each["finish_reason"] for each in own[:-1]] == [None] * (len(own) - 1)
        assert own[-1]["finish_reason"] == choice["finish_reason"]
        scored = [entry for each in own for entry in (each["logprobs"] or {}).get("content", ())]
        assert scored == ((choice["logprobs"] or {}).get("content") or [])


def test_without_usage_no_chunk_has_any():
    stream = ChatStream(HEAD)
    assert all("usage" not in plain(chunk) for chunk in stream.end(said()))


@given(streamed(), streamed())
def test_the_chunks_of_completions_are_their_answer(first, second):
    n = max(len(first[1].samples), len(second[1].samples))
    if len(first[1].samples) != len(second[1].samples):
        second, n = first, len(first[1].samples)
    stream = CompletionStream(HEAD, n, include_usage=True)
    chunks = plain(stream.echo(["p", "qq"]))
    for number, (deltas, _) in enumerate((first, second)):
        chunks += [plain(part) for delta in deltas for part in stream.delta(number, delta)]
    chunks += plain(stream.end([first[1], second[1]]))
    expected = plain(completion_answer.answer(HEAD, [first[1], second[1]], ["p", "qq"]))
    assert chunks[-1]["usage"] == expected["usage"]
    choices = [choice for chunk in chunks for choice in chunk["choices"]]
    for choice in expected["choices"]:
        own = [each for each in choices if each["index"] == choice["index"]]
        assert "".join(each["text"] for each in own) == choice["text"]
        assert own[-1]["finish_reason"] == choice["finish_reason"]
        tokens = [text for each in own for text in (each["logprobs"] or {}).get("tokens", ())]
        assert tokens == ((choice["logprobs"] or {}).get("tokens") or [])


def test_completions_number_the_answers_of_each_prompt():
    two = answered(Output(index=0, text="a"), Output(index=1, text="b"))
    answer = plain(completion_answer.answer(HEAD, [two, two], ["x", "y"]))
    assert [(each["index"], each["text"]) for each in answer["choices"]] == [
        (0, "xa"),
        (1, "xb"),
        (2, "ya"),
        (3, "yb"),
    ]
    assert answer["usage"]["total_tokens"] == 24


def test_the_lists_of_log_probabilities():
    first = token("a", None)
    second = token("b", -1.0, ("b", -1.0), ("c", -2.0))
    found = plain(lists([first, second], 3))
    assert found == {
        "tokens": ["a", "b"],
        "token_logprobs": [None, -1.0],
        "top_logprobs": [None, {"b": -1.0, "c": -2.0}],
        "text_offset": [3, 4],
    }


def test_of_two_tokens_with_one_text_the_likelier_is_shown():
    twins = token("x", -3.0)
    twins = msgspec.structs.replace(
        twins,
        top=[
            TopToken(token_id=5, text="y", logprob=-1.0),
            TopToken(token_id=6, text="y", logprob=-4.0),
        ],
    )
    assert lists([twins]).top_logprobs == [{"x": -3.0, "y": -1.0}]


def test_an_echo_with_scores_begins_where_the_text_does():
    scored = [token("<bos>", None), token("h"), token("i")]
    answer = answered(
        Output(text="!", token_ids=[1], logprobs=[token("!")]), prompt_logprobs=scored
    )
    (choice,) = completion_answer.answer(HEAD, [answer], ["hi"]).choices
    assert choice.text == "hi!"
    assert choice.logprobs.tokens == ["<bos>", "h", "i", "!"]
    assert choice.logprobs.text_offset == [0, 0, 1, 2]
