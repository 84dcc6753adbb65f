"""Bodies of responses as questions for a worker, their events, and the store between them."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmkernel.errors import InvalidRequest, UnsupportedField
from llmkernel.gateway.openai import response, response_request
from llmkernel.gateway.openai.response_request import LOGPROBS, ResponseRequest
from llmkernel.gateway.openai.response_store import ResponseStore
from llmkernel.gateway.openai.response_stream import ResponseStream
from llmkernel.gateway.translation.naming import Head
from llmkernel.params import SamplingParams
from llmkernel.protocol import ChatMessage
from tests.gateway.bodies_of import read, said, streamed, token

HEAD = Head("resp_1", "model", 12)


def ask(given="hi", before=(), **fields):
    request = read(ResponseRequest, input=given, **fields)
    return response_request.ask(request, before, response_request.turns(request))


def turns(*args, **fields):
    return [(turn.role, turn.content) for turn in ask(*args, **fields).messages]


def begun(**fields):
    return response.begun(HEAD, read(ResponseRequest, input="hi", **fields), SamplingParams())


def plain(value):
    return msgspec.json.decode(msgspec.json.encode(value))


def test_a_text_is_a_turn_of_the_user():
    assert turns("hi") == [("user", "hi")]


def test_instructions_come_first_and_what_was_said_before_next():
    before = [ChatMessage(role="user", content="a"), ChatMessage(role="assistant", content="b")]
    assert turns("hi", before, instructions="Be brief.") == [
        ("system", "Be brief."),
        ("user", "a"),
        ("assistant", "b"),
        ("user", "hi"),
    ]


def test_messages_old_and_new():
    answer = plain(response.message("msg_1", said("b", logprobs=[token("b")])))
    found = turns(
        [
            {"role": "developer", "content": "x"},
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "a"}]},
            answer,
            {"role": "user", "content": "c"},
        ]
    )
    assert found == [("system", "x"), ("user", "a"), ("assistant", "b"), ("user", "c")]


@pytest.mark.parametrize(
    ("item", "field"),
    [
        (
            {"role": "user", "content": [{"type": "input_image", "image_url": "x"}]},
            "input[0].content[0].type",
        ),
        ({"type": "function_call_output", "call_id": "1", "output": "x"}, "input[0].type"),
        ({"type": "reasoning", "summary": []}, "input[0].type"),
        ({"type": "poem"}, "input[0].type"),
        ({"role": "poet", "content": "x"}, "input[0].role"),
        ({"content": "x"}, "input[0].role"),
        ({"role": "user", "content": 3}, "input[0].content"),
        ({"role": "user", "content": "x", "mood": "good"}, "input[0].mood"),
    ],
)
def test_items_that_are_not_served_are_named(item, field):
    with pytest.raises(InvalidRequest) as refused:
        ask([item])
    assert refused.value.data["field"] == field


UNSUPPORTED = {
    "tools": [{"type": "web_search"}],
    "tool_choice": "required",
    "max_tool_calls": 3,
    "text": {"format": {"type": "json_object"}},
    "reasoning": {"effort": "high"},
    "truncation": "auto",
    "context_management": [{"type": "compaction"}],
    "prompt": {"id": "p"},
    "moderation": {},
    "image": {},
    "access_programs": [],
    "conversation": "conv_1",
    "background": True,
    "background_options": {},
    "service_tier": "flex",
}


@pytest.mark.parametrize("field", UNSUPPORTED)
def test_what_is_not_served_is_refused_by_name(field):
    with pytest.raises(UnsupportedField) as refused:
        ask(**{field: UNSUPPORTED[field]})
    assert refused.value.data["field"] == field


def test_every_refused_field_is_tested():
    assert set(UNSUPPORTED) == set(response_request._REFUSED)


def test_null_is_the_same_as_left_out():
    assert ask(**dict.fromkeys(set(ResponseRequest.__struct_fields__) - {"input"})) == ask()


def test_an_empty_input_is_refused():
    with pytest.raises(InvalidRequest, match="input is empty"):
        ask([])


def test_log_probabilities_are_included_by_name():
    assert ask(include=[LOGPROBS], top_logprobs=3).params.logprobs == 3
    assert ask(include=[LOGPROBS]).params.logprobs == 0
    assert ask(include=[]).params.logprobs is None
    for fields in ({"include": ["file_search_call.results"]}, {"top_logprobs": 3}):
        with pytest.raises(InvalidRequest):
            ask(**fields)


def test_the_limit_is_named_as_it_was_sent():
    assert ask(max_output_tokens=5).params.max_tokens == 5
    with pytest.raises(InvalidRequest) as refused:
        ask(max_output_tokens=-5)
    assert refused.value.data["field"] == "max_output_tokens"


def test_a_response_that_was_cut_is_incomplete():
    cut = plain(response.ended(begun(), "msg_1", said("x", finish_reason="length")))
    assert (cut["status"], cut["incomplete_details"]) == (
        "incomplete",
        {"reason": "max_output_tokens"},
    )
    whole = plain(response.ended(begun(metadata={"a": "b"}), "msg_1", said("x")))
    assert (whole["status"], whole["incomplete_details"]) == ("completed", None)
    assert whole["metadata"] == {"a": "b"}
    assert whole["usage"]["input_tokens_details"] == {"cached_tokens": 3}


@given(streamed(most=1))
def test_the_events_of_a_response_are_its_answer(given):
    deltas, whole = given
    stream = ResponseStream(begun(), "msg_1")
    events = plain([*stream.begin(), *(e for d in deltas for e in stream.delta(d))])
    events += plain(stream.end(whole))
    expected = plain(response.ended(begun(), "msg_1", whole))
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    deltas = [e for e in events if e["type"] == "response.output_text.delta"]
    (part,) = expected["output"][0]["content"]
    assert "".join(e["delta"] for e in deltas) == part["text"]
    assert [entry for e in deltas for entry in e["logprobs"]] == part["logprobs"]
    assert events[-1] == {
        "type": f"response.{expected['status']}",
        "sequence_number": len(events) - 1,
        "response": expected,
    }


def kept(name: str, text: str = "x"):
    made = msgspec.structs.replace(begun(), id=name)
    return made, [ChatMessage(role="user", content=text)]


def test_the_least_recently_used_response_goes_first():
    store = ResponseStore(most=2)
    for name in ("a", "b"):
        store.put("ada", *kept(name))
    assert store.get("ada", "a") is not None
    store.put("ada", *kept("c"))
    assert store.get("ada", "b") is None
    assert store.get("ada", "a") is not None
    assert store.get("ada", "c") is not None


def test_nobody_sees_the_responses_of_somebody_else():
    store = ResponseStore()
    store.put("ada", *kept("a"))
    assert store.get("bob", "a") is None
    assert not store.remove("bob", "a")
    assert store.remove("ada", "a")
    assert not store.remove("ada", "a")


@given(st.lists(st.tuples(st.sampled_from("abcde"), st.integers(0, 900)), max_size=30))
def test_the_store_holds_no_more_bytes_than_it_may(puts):
    store = ResponseStore(most=4, most_bytes=2500)
    for name, size in puts:
        store.put("ada", *kept(name, "x" * size))
        sizes = [store.get("ada", each).size for each in "abcde" if store.get("ada", each)]
        assert len(store) == len(sizes) <= 4
        assert sum(sizes) <= 2500
        assert store._bytes == sum(sizes)


def test_what_is_larger_than_all_the_room_is_not_kept():
    store = ResponseStore(most_bytes=1000)
    store.put("ada", *kept("a"))
    store.put("ada", *kept("b", "x" * 2000))
    assert store.get("ada", "a") is not None
    assert store.get("ada", "b") is None
