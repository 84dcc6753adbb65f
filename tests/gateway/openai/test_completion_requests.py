"""Bodies of completions as questions for a worker."""

from __future__ import annotations

import pytest

from llmkernel.errors import InvalidRequest, UnsupportedField
from llmkernel.gateway.openai import completion_request
from llmkernel.gateway.openai.completion_request import CompletionRequest
from tests.gateway.bodies_of import read


def asks(prompt="x", most=4, **fields):
    return completion_request.asks(read(CompletionRequest, prompt=prompt, **fields), most)


def refused(prompt="x", **fields):
    with pytest.raises(InvalidRequest) as error:
        asks(prompt, **fields)
    return error.value


@pytest.mark.parametrize(
    ("prompt", "questions"),
    [
        ("x", ["x"]),
        ([1, 2], [[1, 2]]),
        (["a", "b"], ["a", "b"]),
        ([[1], [2, 3]], [[1], [2, 3]]),
        (["a", [1]], ["a", [1]]),
    ],
)
def test_prompts_are_texts_or_token_ids(prompt, questions):
    assert [ask.prompt for ask in asks(prompt)] == questions
    assert all(ask.messages is None for ask in asks(prompt))


@pytest.mark.parametrize(
    ("prompt", "field"),
    [
        ([], "prompt"),
        (["a", "b", "c", "d", "e"], "prompt"),
        ([["a"]], "prompt[0]"),
        ([1, "a"], "prompt[0]"),
        ([True], "prompt[0]"),
        (["a", None], "prompt[1]"),
        (["a", {}], "prompt[1]"),
    ],
)
def test_what_is_no_prompt_is_refused(prompt, field):
    assert refused(prompt).data["field"] == field


def test_sixteen_tokens_unless_told_otherwise():
    assert asks()[0].params.max_tokens == 16
    assert asks(max_tokens=None)[0].params.max_tokens == 16
    assert asks(max_tokens=3)[0].params.max_tokens == 3


def test_scoring_a_prompt():
    (scored,) = asks(echo=True, logprobs=2, max_tokens=0)
    assert scored.params.prompt_logprobs == 2
    (plain,) = asks(echo=True, max_tokens=0)
    assert plain.params.prompt_logprobs == 0
    assert asks(echo=True)[0].params.prompt_logprobs is None
    assert asks(logprobs=2)[0].params.prompt_logprobs is None
    assert refused(max_tokens=0).data["field"] == "max_tokens"


@pytest.mark.parametrize(
    ("fields", "blamed"),
    [
        ({"best_of": 3, "n": 1}, "best_of"),
        ({"echo": True, "logprobs": 0}, "echo"),
        ({"echo": True, "max_tokens": 0}, "echo"),
    ],
)
def test_what_cannot_be_streamed_is_refused(fields, blamed):
    assert refused(stream=True, **fields).data["field"] == blamed
    assert asks(**fields)


def test_streams_take_the_rest():
    assert asks(stream=True, echo=True, n=2, best_of=2)[0].params.width == 2


@pytest.mark.parametrize(
    ("field", "value"),
    [("suffix", "end"), ("grammar", "x"), ("adapter_id", "a"), ("response_format", {"type": "x"})],
)
def test_what_is_not_served_is_refused_by_name(field, value):
    error = refused(**{field: value})
    assert isinstance(error, UnsupportedField)
    assert error.data["field"] == field


def test_null_is_the_same_as_left_out():
    fields = set(CompletionRequest.__struct_fields__) - {"prompt"}
    assert asks(**dict.fromkeys(fields)) == asks()
