"""Sampling parameters: one validation, the same verdict for every way a value can come in."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llmkernel.errors import InvalidRequest
from llmkernel.params import (
    BOUNDS,
    MAX_LOGIT_BIAS,
    MAX_STOP_CHARS,
    MAX_STOP_TOKEN_IDS,
    MAX_STOPS,
    SamplingParams,
)

pytestmark = pytest.mark.timeout(30)

INTEGERS = (
    "max_tokens",
    "min_tokens",
    "top_k",
    "seed",
    "n",
    "best_of",
    "logprobs",
    "prompt_logprobs",
)
REALS = tuple(name for name in BOUNDS if name not in INTEGERS)
TOGETHER = {
    "max_tokens": {"prompt_logprobs": 0},
    "min_tokens": {"max_tokens": 2**31 - 1},
    "n": {"best_of": 64},
}
"""What a value at its bound needs beside it to make sense."""


def build(name: str, value: object) -> SamplingParams:
    return SamplingParams.build(**TOGETHER.get(name, {}) | {name: value})


def refusal(**values: object) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        SamplingParams.build(**values)
    return caught.value


def test_every_number_has_a_bound():
    optional = (int | None, float | None)
    numbers = {
        field.name
        for field in msgspec.structs.fields(SamplingParams)
        if field.type in (int, float, *optional)
    }
    assert numbers == set(BOUNDS)


@pytest.mark.parametrize("name", BOUNDS)
def test_the_bounds_themselves_are_served(name):
    bound = BOUNDS[name]
    kind = int if name in INTEGERS else float
    low = math.nextafter(bound.low, math.inf) if bound.open_low else bound.low
    for value in (kind(low), kind(bound.high)):
        assert getattr(build(name, value), name) == value


@pytest.mark.parametrize("name", BOUNDS)
def test_one_beyond_the_bounds_is_refused_with_the_range(name):
    bound = BOUNDS[name]
    kind = int if name in INTEGERS else float
    step = 1 if name in INTEGERS else 1e-6
    outside = [kind(bound.low) - step, kind(bound.high) + step]
    if bound.open_low:
        outside.append(bound.low)
    for value in outside:
        error = refusal(**{name: value})
        assert name in str(error)


@pytest.mark.parametrize("name", BOUNDS)
@pytest.mark.parametrize(
    "value",
    [math.nan, math.inf, -math.inf, 1e308, 10**5000, -(10**5000), "1", True, [1], {}, b"1", 1j],
    ids=range(12),
)
def test_what_is_no_number_in_range_is_refused_by_name(name, value):
    assert name in str(refusal(**{name: value}))


@pytest.mark.parametrize("name", INTEGERS)
def test_a_fraction_is_no_count(name):
    assert name in str(refusal(**{name: 1.5}))


@pytest.mark.parametrize("name", BOUNDS)
def test_none_is_the_default(name):
    assert SamplingParams.build(**{name: None}) == SamplingParams()


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (np.int32, "max_tokens"),
        (np.int64, "seed"),
        (np.uint8, "n"),
        (np.float32, "temperature"),
        (np.float64, "top_p"),
        (np.int64, "temperature"),
        (torch.tensor, "top_k"),
    ],
)
def test_scalars_of_other_libraries_are_numbers(kind, name):
    params = SamplingParams.build(**{name: kind(1)})
    assert params == SamplingParams.build(**{name: 1})
    assert type(getattr(params, name)) in (int, float)


def test_numpy_values_in_lists_are_numbers():
    params = SamplingParams.build(
        stop_token_ids=list(np.arange(3)), logit_bias={np.int64(5): np.float32(2)}
    )
    assert params.stop_token_ids == [0, 1, 2]
    assert params.logit_bias == {5: 2.0}


@pytest.mark.parametrize("given_", ["END", ["END"], ("END",), {"END"}])
def test_stop_is_one_text_or_several(given_):
    assert SamplingParams.build(stop=given_).stop == ["END"]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"stop": ["x"] * (MAX_STOPS + 1)}, str(MAX_STOPS)),
        ({"stop": [""]}, "1 to"),
        ({"stop": ["x" * (MAX_STOP_CHARS + 1)]}, str(MAX_STOP_CHARS)),
        ({"stop": ["a\ud800"]}, "surrogate"),
        ({"stop": [1]}, "stop"),
        ({"stop_token_ids": [1] * (MAX_STOP_TOKEN_IDS + 1)}, str(MAX_STOP_TOKEN_IDS)),
        ({"stop_token_ids": [-1]}, "negative"),
        ({"stop_token_ids": [2**31]}, "2^31"),
        ({"logit_bias": dict.fromkeys(range(MAX_LOGIT_BIAS + 1), 0.0)}, str(MAX_LOGIT_BIAS)),
        ({"logit_bias": {1: 101}}, "-100 to 100"),
        ({"logit_bias": {1: math.nan}}, "-100 to 100"),
        ({"logit_bias": {-1: 1}}, "negative"),
        ({"max_tokens": 0}, "at least 1"),
        ({"max_tokens": 4, "min_tokens": 5}, "min_tokens (5) is above max_tokens (4)"),
        ({"n": 0}, "The number of answers n must be from 1 to 64, and was 0."),
        ({"n": 3, "best_of": 2}, "best_of (2) is below n (3), the number of answers"),
        ({"n": 2, "temperature": 0}, "Several answers need a temperature above 0"),
        ({"n": 2, "max_tokens": 0, "prompt_logprobs": 1}, "one answer"),
    ],
    ids=range(18),
)
def test_a_refusal_says_what_would_be_served(values, said):
    assert said in str(refusal(**values))


@pytest.mark.parametrize(
    ("name", "near"),
    [("max_token", "max_tokens"), ("temprature", "temperature"), ("topp", "top_p")],
)
def test_an_unknown_name_is_refused_with_the_nearest(name, near):
    error = refusal(**{name: 1})
    assert repr(near) in str(error)
    assert error.data["field"] == name


@pytest.mark.parametrize(
    ("name", "here"),
    [
        ("do_sample", "temperature=0"),
        ("num_predict", "max_tokens"),
        ("num_return_sequences", "n"),
        ("stop_sequences", "stop"),
        ("stop_strings", "stop"),
        ("stream", "stream_chat"),
        ("system", '"role": "system"'),
    ],
)
def test_what_others_call_it_is_refused_with_what_it_is_here(name, here):
    said = str(refusal(**{name: 1}))
    assert said.startswith(f"There is no parameter {name!r}. Here ")
    assert here in said
    assert "Known" not in said


def test_a_name_like_no_other_is_refused_with_all_of_them():
    assert "max_tokens, min_tokens" in str(refusal(zzzzzz=1))


def test_unknown_fields_are_refused_on_the_wire_too():
    with pytest.raises(msgspec.ValidationError, match="frobnicate"):
        msgspec.msgpack.decode(msgspec.msgpack.encode({"frobnicate": 1}), type=SamplingParams)


def test_width_is_best_of_where_given():
    assert SamplingParams.build(n=2).width == 2
    assert SamplingParams.build(n=2, best_of=5).width == 5


ANY = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=5),
    st.lists(st.one_of(st.integers(), st.text(max_size=3), st.floats()), max_size=4),
    st.dictionaries(
        st.one_of(st.integers(), st.text(max_size=2)),
        st.one_of(st.floats(), st.none()),
        max_size=3,
    ),
)


@given(st.dictionaries(st.sampled_from(SamplingParams.__struct_fields__), ANY, max_size=4))
def test_any_value_is_served_or_refused_and_never_anything_else(values):
    try:
        params = SamplingParams.build(**values)
    except InvalidRequest:
        return
    assert params.check() is params
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(params), type=SamplingParams) == params
    assert SamplingParams.build(**msgspec.structs.asdict(params)) == params


def test_a_value_of_the_wrong_kind_is_named_in_plain_words():
    with pytest.raises(
        InvalidRequest, match=r"^temperature must be a number, not text\.$"
    ) as caught:
        SamplingParams.build(temperature="hot")
    assert caught.value.data == {"field": "temperature"}
    with pytest.raises(
        InvalidRequest, match=r"^max_tokens must be a whole number, not a fraction\.$"
    ):
        SamplingParams.build(max_tokens=1.5)
    with pytest.raises(InvalidRequest, match=r"^stop must be a list, not a whole number\.$"):
        SamplingParams.build(stop=5)


@pytest.mark.parametrize(
    ("biases", "said"),
    [
        ({"Paris": 5}, "Each key of logit_bias must be a whole number, not text."),
        ({1.5: 5}, "Each key of logit_bias must be a whole number, not a fraction."),
        ({5: "Paris"}, "Each value of logit_bias must be a number, not text."),
    ],
)
def test_what_is_no_bias_of_a_token_is_told_apart(biases, said):
    with pytest.raises(InvalidRequest) as caught:
        SamplingParams.build(logit_bias=biases)
    assert caught.value.message == said
    assert caught.value.data == {"field": "logit_bias"}
