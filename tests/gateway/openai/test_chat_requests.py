"""Bodies of chat completions as questions for a worker."""

from __future__ import annotations

import pytest

from llmkernel.errors import InvalidRequest, UnsupportedField
from llmkernel.gateway.faults import Refusal
from llmkernel.gateway.openai import chat_request
from llmkernel.gateway.openai.chat_request import ChatRequest
from llmkernel.protocol import ChatMessage
from tests.gateway.bodies_of import read

USER = {"role": "user", "content": "hi"}


def ask(*messages, **fields):
    return chat_request.ask(read(ChatRequest, messages=list(messages) or [USER], **fields))


def refused(**fields):
    with pytest.raises(InvalidRequest) as error:
        ask(**fields)
    return error.value


def test_a_conversation_is_itself():
    turns = [("system", "be short"), ("user", "hi"), ("assistant", "hello"), ("user", "bye")]
    found = ask(*({"role": role, "content": content} for role, content in turns))
    assert found.messages == [ChatMessage(role=role, content=content) for role, content in turns]
    assert not found.continue_final_message


def test_developer_is_the_newer_word_for_system():
    assert ask({"role": "developer", "content": "x"}, USER).messages[0].role == "system"


def test_a_last_turn_of_the_assistant_is_gone_on_with():
    found = ask(USER, {"role": "assistant", "content": "The answer"})
    assert found.continue_final_message
    assert found.messages[-1].content == "The answer"


def test_an_answer_can_be_sent_back_as_clients_dump_it():
    dumped = {
        "role": "assistant",
        "content": "hello",
        "refusal": None,
        "annotations": None,
        "audio": None,
        "function_call": None,
        "tool_calls": None,
    }
    assert ask(USER, dumped, USER).messages[1].content == "hello"


@pytest.mark.parametrize("role", ["tool", "function"])
def test_turns_of_tools_are_unsupported(role):
    with pytest.raises(UnsupportedField) as error:
        ask(USER, {"role": role, "content": "4", "tool_call_id": "1"})
    assert error.value.data["field"] == "messages[1].role"


def test_an_unknown_role_is_refused():
    with pytest.raises(InvalidRequest, match=r"messages\[0\]\.role must be one of system"):
        ask({"role": "narrator", "content": "x"})


@pytest.mark.parametrize(
    ("field", "value"),
    [("name", "ada"), ("tool_calls", [{"id": "1"}]), ("function_call", {}), ("refusal", "no")],
)
def test_fields_of_a_turn_that_are_not_served_are_named(field, value):
    with pytest.raises(UnsupportedField) as error:
        ask({"role": "user", "content": "x", field: value})
    assert error.value.data["field"] == f"messages[0].{field}"


UNSUPPORTED = {
    "tools": [{"type": "function", "function": {"name": "f"}}],
    "tool_choice": "required",
    "tool_prompt": "use them",
    "functions": [{"name": "f"}],
    "function_call": {"name": "f"},
    "response_format": {"type": "json_object"},
    "modalities": ["text", "audio"],
    "audio": {"voice": "x"},
    "prediction": {"type": "content"},
    "reasoning_effort": "high",
    "verbosity": "low",
    "web_search_options": {},
    "store": True,
    "service_tier": "priority",
    "chat_template": "{{ x }}",
    "chat_template_kwargs": {"chat_template": "{{ x }}"},
    "moderation": {},
    "grammar": "root ::= x",
    "adapter_id": "a",
}


@pytest.mark.parametrize("field", UNSUPPORTED)
def test_what_is_not_served_is_refused_by_name(field):
    error = refused(**{field: UNSUPPORTED[field]})
    assert isinstance(error, UnsupportedField)
    assert error.data["field"] == field
    assert field in error.message


NEUTRAL = {
    "tools": [],
    "tool_choice": "none",
    "response_format": {"type": "text"},
    "modalities": ["text"],
    "store": False,
    "service_tier": "auto",
    "parallel_tool_calls": True,
    "user": "u",
    "metadata": {"a": "b"},
    "prompt_cache_key": "k",
    "safety_identifier": "s",
}


@pytest.mark.parametrize("field", NEUTRAL)
def test_what_asks_for_nothing_changes_nothing(field):
    assert ask(**{field: NEUTRAL[field]}) == ask()


def test_every_refused_field_is_tested():
    assert set(UNSUPPORTED) == set(chat_request._REFUSED)


def test_null_is_the_same_as_left_out():
    assert ask(**dict.fromkeys(set(ChatRequest.__struct_fields__) - {"messages"})) == ask()


def test_an_unknown_field_is_refused_by_name():
    with pytest.raises(Refusal) as error:
        ask(tempreature=1)
    assert error.value.field == "tempreature"


def test_the_newer_name_of_max_tokens_wins():
    assert ask(max_tokens=5, max_completion_tokens=9).params.max_tokens == 9
    assert refused(max_completion_tokens=-1).data["field"] == "max_completion_tokens"


def test_logprobs():
    assert ask(logprobs=True).params.logprobs == 0
    assert ask(logprobs=True, top_logprobs=3).params.logprobs == 3
    assert ask(logprobs=False).params.logprobs is None
    assert refused(top_logprobs=3).data["field"] == "top_logprobs"
    assert refused(logprobs=True, top_logprobs=21).data["field"] == "top_logprobs"


def test_stream_options_need_a_stream():
    assert refused(stream_options={"include_usage": True}).data["field"] == "stream_options"
    request = read(
        ChatRequest, messages=[USER], stream=True, stream_options={"include_usage": True}
    )
    assert chat_request.wants_usage(request)
