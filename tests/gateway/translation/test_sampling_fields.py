"""The parameters that a body asks for are those that the client would have taken, or refused."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from llmkernel.errors import InvalidRequest
from llmkernel.gateway.faults import Refusal
from llmkernel.gateway.openai import chat_request, completion_request
from llmkernel.gateway.openai.chat_request import ChatRequest
from llmkernel.gateway.openai.completion_request import CompletionRequest
from llmkernel.gateway.translation import sampling
from llmkernel.params import BOUNDS, SamplingParams
from tests.gateway.bodies_of import read

NAMES = sorted({*BOUNDS, "stop", "ignore_eos", "stop_token_ids"} - {"prompt_logprobs"})
NUMBERS = (
    st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from([-2.0, -1, 0, 0.0, 1, 1.0, 2.0, 2.1, 16, 20, 21, 64, 65, 100, 100.5])
)
VALUES = NUMBERS | st.none() | st.booleans() | st.text(max_size=3) | st.lists(NUMBERS, max_size=2)
USER = [{"role": "user", "content": "hi"}]


def by_client(name, value):
    """What the ZeroMQ client makes of a keyword, or None where it refuses it."""
    try:
        return SamplingParams.build(**{"max_tokens": 16, name: value})
    except InvalidRequest:
        return None


def by_completion(name, value):
    try:
        request = read(CompletionRequest, prompt="x", **{"max_tokens": 16, name: value})
        (ask,) = completion_request.asks(request, 4)
    except (InvalidRequest, Refusal):
        return None
    return ask.params


@given(st.sampled_from(NAMES), VALUES)
@example("temperature", 0)
@example("max_tokens", 0)
@example("n", True)
@example("seed", 2**63)
@example("top_p", 1)
@example("stop", "")
def test_a_completion_takes_and_refuses_what_the_client_does(name, value):
    if name == "max_tokens" and value is None:
        value = 16  # which OpenAI's API says
    assert by_completion(name, value) == by_client(name, value)


@given(st.sampled_from([name for name in NAMES if name not in ("best_of", "logprobs")]), VALUES)
def test_a_chat_takes_and_refuses_what_the_client_does(name, value):
    try:
        request = read(ChatRequest, messages=USER, **{"max_tokens": 16, name: value})
        found = chat_request.ask(request).params
    except (InvalidRequest, Refusal):
        found = None
    if name == "max_tokens" and value is None:
        assert found == SamplingParams()
    else:
        assert found == by_client(name, value)


def test_logit_bias_goes_by_token_id():
    request = read(ChatRequest, messages=USER, logit_bias={"7": -100, "0": 2.5})
    assert chat_request.ask(request).params.logit_bias == {7: -100.0, 0: 2.5}


@pytest.mark.parametrize("key", ["", "x", "-1", "1.5", "٣", "9" * 30])
def test_a_bias_for_what_is_no_token_id_is_refused(key):
    request = read(ChatRequest, messages=USER, logit_bias={key: 1})
    with pytest.raises(InvalidRequest) as refused:
        chat_request.ask(request)
    assert refused.value.data["field"] == "logit_bias"


def test_a_refusal_speaks_of_the_field_that_was_sent():
    with pytest.raises(InvalidRequest, match=r"^options\.num_predict must be") as refused:
        sampling.build({"max_tokens": -7}, {"max_tokens": "options.num_predict"})
    assert refused.value.data["field"] == "options.num_predict"
