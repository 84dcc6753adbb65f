"""Bodies of messages as questions for a worker, and answers as messages."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given

from llmkernel.errors import InvalidRequest, UnsupportedField
from llmkernel.gateway.anthropic import answer as answers
from llmkernel.gateway.anthropic import request as requests
from llmkernel.gateway.anthropic.request import MessagesRequest
from llmkernel.gateway.anthropic.stream import MessageStream
from llmkernel.gateway.faults import Refusal
from llmkernel.gateway.translation.naming import Head
from tests.gateway.bodies_of import read, said, streamed

USER = {"role": "user", "content": "hi"}
HEAD = Head("msg_1", "model", 12)


def ask(*messages, **fields):
    turns = list(messages) or [USER]
    return requests.ask(read(MessagesRequest, **{"max_tokens": 9, "messages": turns} | fields))


def plain(value):
    return msgspec.json.decode(msgspec.json.encode(value))


def test_the_system_comes_first():
    parts = [{"type": "text", "text": "Be "}, {"type": "text", "text": "brief."}]
    for system in ("Be brief.", parts):
        found = ask(system=system).messages
        assert [(turn.role, turn.content) for turn in found] == [
            ("system", "Be brief."),
            ("user", "hi"),
        ]


def test_turns_of_one_role_become_one():
    found = ask(USER, USER, {"role": "assistant", "content": "x"}, USER).messages
    assert [(turn.role, turn.content) for turn in found] == [
        ("user", "hi\nhi"),
        ("assistant", "x"),
        ("user", "hi"),
    ]


def test_a_last_turn_of_the_assistant_is_gone_on_with():
    assert ask(USER, {"role": "assistant", "content": "The"}).continue_final_message
    assert not ask().continue_final_message


def test_parameters():
    params = ask(stop_sequences=["a"], temperature=0.5, top_k=3, top_p=0.9, seed=4).params
    assert (params.max_tokens, params.stop, params.temperature) == (9, ["a"], 0.5)
    assert (params.top_k, params.top_p, params.seed) == (3, 0.9, 4)


UNSUPPORTED = {
    "tools": [{"name": "f", "input_schema": {}}],
    "tool_choice": {"type": "any"},
    "mcp_servers": [{"name": "x"}],
    "thinking": {"type": "enabled", "budget_tokens": 1024},
    "output_config": {"effort": "high"},
    "output_format": {"type": "json_schema"},
    "context_management": {"edits": []},
    "container": "c",
    "speed": "fast",
    "service_tier": "priority",
    "inference_geo": "eu",
}


@pytest.mark.parametrize("field", UNSUPPORTED)
def test_what_is_not_served_is_refused_by_name(field):
    with pytest.raises(UnsupportedField) as refused:
        ask(**{field: UNSUPPORTED[field]})
    assert refused.value.data["field"] == field


def test_every_refused_field_is_tested():
    assert set(UNSUPPORTED) == set(requests._REFUSED) | set(requests._SAMPLING)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("tools", []),
        ("tool_choice", {"type": "none"}),
        ("thinking", {"type": "disabled"}),
        ("metadata", {"user_id": "u"}),
        ("service_tier", "standard_only"),
        ("cache_control", {"type": "ephemeral"}),
    ],
)
def test_what_asks_for_nothing_changes_nothing(field, value):
    assert ask(**{field: value}) == ask()


@pytest.mark.parametrize(
    ("messages", "field"),
    [
        ([], "messages"),
        ([{"role": "system", "content": "x"}], "messages[0].role"),
        ([USER, {"role": "user", "content": [{"type": "image"}]}], "messages[1].content[0].type"),
        ([{"role": "user", "content": [{"type": "tool_result"}]}], "messages[0].content[0].type"),
    ],
)
def test_what_is_no_conversation_is_refused(messages, field):
    with pytest.raises(InvalidRequest) as refused:
        ask(messages=messages)
    assert refused.value.data["field"] == field


def test_max_tokens_is_required():
    with pytest.raises(Refusal) as refused:
        read(MessagesRequest, messages=[USER])
    assert refused.value.field == "max_tokens"


def test_stop_sequences_are_named_in_refusals():
    with pytest.raises(InvalidRequest) as refused:
        ask(stop_sequences=["a"] * 17)
    assert refused.value.data["field"] == "stop_sequences"


@pytest.mark.parametrize(
    ("end", "reason", "sequence"),
    [
        ({}, "end_turn", None),
        ({"stop_reason": 7}, "end_turn", None),
        ({"stop_reason": "X"}, "stop_sequence", "X"),
        ({"finish_reason": "length"}, "max_tokens", None),
    ],
)
def test_a_message(end, reason, sequence):
    answer = plain(answers.answer(HEAD, said("hello", **end)))
    assert answer["content"] == [{"type": "text", "text": "hello"}]
    assert (answer["stop_reason"], answer["stop_sequence"]) == (reason, sequence)
    assert answer["usage"] == {
        "input_tokens": 4,
        "output_tokens": 5,
        "cache_read_input_tokens": 3,
        "cache_creation_input_tokens": 0,
    }


@given(streamed(most=1))
def test_the_events_of_a_message_are_its_answer(given):
    deltas, whole = given
    stream = MessageStream(HEAD, 9)
    events = plain([*stream.begin(), *(e for d in deltas for e in stream.delta(d))])
    events += plain(stream.end(whole))
    expected = plain(answers.answer(HEAD, whole))
    assert events[0]["message"]["usage"]["input_tokens"] == 9
    assert events[0]["message"]["stop_reason"] is None
    texts = [e["delta"]["text"] for e in events if e["type"] == "content_block_delta"]
    assert "".join(texts) == expected["content"][0]["text"]
    assert events[-2]["delta"] == {
        "stop_reason": expected["stop_reason"],
        "stop_sequence": expected["stop_sequence"],
    }
    assert events[-2]["usage"] == expected["usage"]
    assert events[-1] == {"type": "message_stop"}
