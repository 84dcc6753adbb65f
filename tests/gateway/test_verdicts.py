"""One table of values: the gateway and the client refuse the same, each in its own words."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import pytest

from llmkernel.errors import InvalidRequest, PromptTooLong

INPUTS = "How do I stop a cell?"


class Row(NamedTuple):
    """What TGI's route is sent, what the client is sent for the same, and the verdicts."""

    tgi: dict[str, Any]
    client: dict[str, Any]
    says: str
    """TGI's words for the refusal; empty where it is accepted."""
    client_accepts: bool | None = None
    """Where the client's verdict is another one, on purpose."""


def same(name: str, value: Any, says: str = "", client_accepts: bool | None = None) -> Row:
    return Row({name: value}, {name: value}, says, client_accepts)


DRAWN = {"do_sample": True}
TABLE = [
    # the client and OpenAI's API have temperature 0 for greedy, TGI refuses it
    same("temperature", 0.0, "`temperature` must be strictly positive", client_accepts=True),
    same("temperature", -0.1, "`temperature` must be strictly positive"),
    same("temperature", 1e-9),
    same("temperature", 1e308, "temperature must be from 0 to 100"),
    same("repetition_penalty", 0.0, "`repetition_penalty` must be strictly positive"),
    same("repetition_penalty", -1.0, "`repetition_penalty` must be strictly positive"),
    same("repetition_penalty", 1.2),
    same("frequency_penalty", 2.01, "`frequency_penalty` must be >= -2.0 and <= 2.0"),
    same("frequency_penalty", -2.01, "`frequency_penalty` must be >= -2.0 and <= 2.0"),
    same("frequency_penalty", 2.0),
    same("frequency_penalty", -2.0),
    # 0 is the client's word for "off"
    same("top_k", 0, "`top_k` must be strictly positive", client_accepts=True),
    same("top_k", -1, "`top_k` must be strictly positive"),
    same("top_k", 1),
    same("top_p", 0.0, "`top_p` must be > 0.0 and < 1.0"),
    # 1 is the client's and OpenAI's word for "off"
    same("top_p", 1.0, "`top_p` must be > 0.0 and < 1.0", client_accepts=True),
    same("top_p", 1.1, "`top_p` must be > 0.0 and < 1.0"),
    same("top_p", 0.5),
    same("typical_p", 0.0, "`typical_p` must be > 0.0 and < 1.0"),
    same("typical_p", 1.0, "`typical_p` must be > 0.0 and < 1.0", client_accepts=True),
    same("typical_p", 0.5),
    Row({"max_new_tokens": 0}, {"max_tokens": 0}, "`max_new_tokens` must be strictly positive"),
    Row({"max_new_tokens": 1}, {"max_tokens": 1}, ""),
    Row({"max_new_tokens": 1024}, {"max_tokens": 1024}, ""),
    # more than 1024 is not refused by TGI if 1024 fit: it ends at the limit
    Row({"max_new_tokens": 5000}, {"max_tokens": 5000}, "", client_accepts=False),
    Row({"best_of": 2, **DRAWN}, {"best_of": 2}, ""),
    same("best_of", 2, "you must use sampling when `best_of` is > 1", client_accepts=True),
    # a temperature counts as asking for draws, also the one that is the default
    Row({"best_of": 2, "temperature": 1.0}, {"best_of": 2, "temperature": 1.0}, ""),
    Row({"best_of": 0, **DRAWN}, {"best_of": 0}, "`best_of` must be > 0 and <= 2. Given: 0"),
    # limits of a server, which a client beside it does not have
    Row({"best_of": 3, **DRAWN}, {"best_of": 3}, "`best_of` must be > 0 and <= 2. Given: 3", True),
    Row(
        {"best_of": 2},
        {"best_of": 2, "temperature": 0},
        "you must use sampling when `best_of` is > 1",
    ),
    Row(
        {"best_of": 2, "seed": 1, **DRAWN},
        {"best_of": 2, "seed": 1},
        "`seed` must not be set when `best_of` > 1",
        client_accepts=True,
    ),
    same("stop", ["a"] * 4),
    same(
        "stop", ["a"] * 5, "`stop` supports up to 4 stop sequences. Given: 5", client_accepts=True
    ),
    same("stop", ["a"] * 17, "`stop` supports up to 4 stop sequences. Given: 17"),
    Row({"top_n_tokens": 5, "details": True}, {"logprobs": 5}, ""),
    Row(
        {"top_n_tokens": 6}, {"logprobs": 6}, "`top_n_tokens` must be >= 0 and <= 5. Given: 6", True
    ),
    Row({"top_n_tokens": 21}, {"logprobs": 21}, "`top_n_tokens` must be >= 0 and <= 5. Given: 21"),
    same("seed", 2**63 - 1),
    same("seed", 0),
    # TGI's seeds are unsigned, the client's are signed: the same 64 bits
    same("seed", 2**63, "", client_accepts=False),
    same("seed", 2**64, "`seed` must be below 2^64"),
]
SHAPES = [
    ("temperature", '"1"'), ("temperature", "true"), ("temperature", "NaN"), ("top_k", "1.5"),
    ("top_k", '"1"'), ("seed", '"x"'), ("max_new_tokens", "1.5"), ("max_new_tokens", "1" * 30),
    ("max_new_tokens", "-1"), ("stop", "[1]"), ("top_n_tokens", "[]"),
]  # fmt: skip
"""Values of another kind: refused by both, whatever the words."""


def label(row: Row) -> str:
    return str(row.tgi)[:40]


@pytest.fixture(scope="module")
def client(scripted):
    return scripted.worker()


def accepts(client, **parameters) -> bool:
    names = {"max_new_tokens": "max_tokens", "top_n_tokens": "logprobs"}
    renamed = {names.get(name, name): value for name, value in parameters.items()}
    try:
        client.generate(INPUTS, **{"max_tokens": 2, **renamed})
    except (InvalidRequest, PromptTooLong):
        return False
    return True


@pytest.mark.parametrize("row", TABLE, ids=label)
def test_the_same_verdict_on_both_paths(scripted, client, row):
    parameters = {"max_new_tokens": 2, **row.tgi}
    answer = scripted.post("/generate", {"inputs": INPUTS, "parameters": parameters})
    if row.says:
        assert answer.status_code == 422
        assert answer.json()["error_type"] == "validation"
        assert answer.json()["error"].startswith(f"Input validation error: {row.says}")
    else:
        assert answer.status_code == 200, answer.text
    expected = not row.says if row.client_accepts is None else row.client_accepts
    assert accepts(client, **row.client) == expected


@pytest.mark.parametrize(("name", "text"), SHAPES)
def test_values_of_another_kind(scripted, client, name, text):
    body = f'{{"inputs": "x", "parameters": {{"{name}": {text}}}}}'
    headers = {"Content-Type": "application/json"}
    answer = scripted.http.post("/generate", content=body, headers=headers)
    assert answer.status_code == (400 if text == "NaN" else 422)
    assert not accepts(client, **{name: json.loads(text)})


def test_prompts_that_do_not_fit(scripted, client):
    for inputs, most, says in (
        ("", 1, "`inputs` cannot be empty"),
        ("x" * 2040, 100, "`inputs` tokens + `max_new_tokens` must be <= 2048. Given: 2041"),
        ("x" * 3000, None, "`inputs` tokens + `max_new_tokens` must be <= 2048. Given: 3001"),
    ):
        parameters = {} if most is None else {"max_new_tokens": most}
        answer = scripted.post("/generate", {"inputs": inputs, "parameters": parameters})
        if most is None:
            assert answer.status_code == 422
            assert "3001" in answer.json()["error"]
        else:
            assert answer.json()["error"].startswith(f"Input validation error: {says}")
    with pytest.raises(PromptTooLong):
        client.generate("x" * 2040, max_tokens=100)


@pytest.mark.parametrize("value", [0, 2048, 10**9])
def test_truncate_has_a_range(scripted, value):
    answer = scripted.post("/generate", {"inputs": "x", "parameters": {"truncate": value}})
    assert answer.json()["error"] == (
        "Input validation error: `truncate` must be strictly positive and less than 2047. "
        f"Given: {value}"
    )


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        ({"best_of": 2, "do_sample": True}, "`best_of` != 1 is not supported when streaming"),
        ({"decoder_input_details": True}, "`decoder_input_details` == true is not supported when"),
    ],
)
def test_what_a_stream_does_not_take(scripted, parameters, says):
    (event,) = scripted.events("/generate_stream", {"inputs": "x", "parameters": parameters})
    assert event["error"].startswith(f"Input validation error: {says}")
