"""Limits of length in every dialect, each in its own words, and who shares cached prompts."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec
import pytest

from llmkernel import connection as files
from llmkernel.client import Client
from llmkernel.client.faces import on_terms
from llmkernel.client.terms import Terms
from llmkernel.gateway.settings import Limits, Settings
from llmkernel.gateway.terms import client_for
from tests.gateway.serving import gate
from tests.wire.serving import serving

MOST_INPUT, MOST_TOTAL = 200, 220
LONG, SHORT = "x" * 400, "Hello there, all of you who read this."


class Call(NamedTuple):
    """How a dialect is asked, how many tokens it may answer, and where its answer says what."""

    path: str
    body: Callable[[str, int | None], dict[str, Any]]
    message: Callable[[dict[str, Any]], str]
    generated: Callable[[dict[str, Any]], int]
    cached: Callable[[dict[str, Any]], int]


def turn(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def some(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def ollama(most: int | None) -> dict[str, Any]:
    return {"stream": False, "options": some(num_predict=most, temperature=0)}


CALLS = {
    "chat": Call(
        "/v1/chat/completions",
        lambda text, most: some(messages=turn(text), max_tokens=most, ignore_eos=True),
        lambda error: error["error"]["message"],
        lambda body: body["usage"]["completion_tokens"],
        lambda body: body["usage"]["prompt_tokens_details"]["cached_tokens"],
    ),
    "completions": Call(
        "/v1/completions",
        lambda text, most: some(prompt=text, max_tokens=most or 16, ignore_eos=True),
        lambda error: error["error"]["message"],
        lambda body: body["usage"]["completion_tokens"],
        lambda body: body["usage"]["prompt_tokens_details"]["cached_tokens"],
    ),
    "responses": Call(
        "/v1/responses",
        lambda text, most: some(input=text, max_output_tokens=most, ignore_eos=True),
        lambda error: error["error"]["message"],
        lambda body: body["usage"]["output_tokens"],
        lambda body: body["usage"]["input_tokens_details"]["cached_tokens"],
    ),
    "anthropic": Call(
        "/v1/messages",
        lambda text, most: {"messages": turn(text), "max_tokens": most or 16},
        lambda error: error["error"]["message"],
        lambda body: body["usage"]["output_tokens"],
        lambda body: body["usage"]["cache_read_input_tokens"],
    ),
    "ollama chat": Call(
        "/api/chat",
        lambda text, most: {"model": "scripted", "messages": turn(text)} | ollama(most),
        lambda error: error["error"],
        lambda body: body["eval_count"],
        lambda body: -1,
    ),
    "ollama generate": Call(
        "/api/generate",
        lambda text, most: {"model": "scripted", "prompt": text, "raw": True} | ollama(most),
        lambda error: error["error"],
        lambda body: body["eval_count"],
        lambda body: -1,
    ),
}


@pytest.fixture(scope="module")
def narrow(scripted, open_gate):
    return open_gate(limits={"max_input_tokens": MOST_INPUT, "max_total_tokens": MOST_TOTAL})


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("stream", [False, True])
def test_a_prompt_above_the_limit_is_refused(narrow, name, stream):
    call = CALLS[name]
    answer = narrow.post(call.path, call.body(LONG, 4) | {"stream": stream})
    assert answer.status_code == 400
    said = call.message(answer.json())
    assert f"no more than {MOST_INPUT} are taken here" in said
    if call.path.startswith("/v1/") and name != "anthropic":
        assert answer.json()["error"]["code"] == "context_length_exceeded"
        assert "maximum context length" in said  # what clients look for
        assert "This model's" not in said  # which has room for more
    if name == "anthropic":
        assert answer.json()["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_that_would_go_over_the_limit_is_refused(narrow, name, stream):
    call = CALLS[name]
    answer = narrow.post(call.path, call.body(SHORT, MOST_TOTAL) | {"stream": stream})
    assert answer.status_code == 400
    said = call.message(answer.json())
    assert f"no more than {MOST_TOTAL} are taken here" in said
    assert f"with max_tokens {MOST_TOTAL} that is" in said


@pytest.mark.parametrize("name", CALLS)
def test_what_is_within_the_limits_is_answered(narrow, name):
    call = CALLS[name]
    answer = narrow.post(call.path, call.body(SHORT, 4))
    assert answer.status_code == 200
    assert 1 <= call.generated(answer.json()) <= 4


def test_an_answer_without_a_limit_of_its_own_ends_at_the_gateways(narrow, scripted):
    call = CALLS["chat"]
    usage = narrow.post(call.path, call.body(SHORT, None)).json()["usage"]
    assert usage["total_tokens"] == MOST_TOTAL
    usage = scripted.post(call.path, call.body(SHORT, None)).json()["usage"]
    assert usage["total_tokens"] > MOST_TOTAL


def test_a_turn_that_is_gone_on_with_is_counted_as_it_is_read(narrow):
    messages = [*turn("Hello"), {"role": "assistant", "content": "y" * 120}]
    body = {"messages": messages, "max_tokens": 2}
    read = narrow.post("/v1/chat/completions", body).json()["usage"]["prompt_tokens"]
    messages[1]["content"] += "y" * (MOST_INPUT - read)
    assert narrow.post("/v1/chat/completions", body).status_code == 200
    messages[1]["content"] += "y"
    refused = narrow.post("/v1/chat/completions", body)
    assert refused.status_code == 400
    assert f"has {MOST_INPUT + 1} tokens" in refused.json()["error"]["message"]


# Salts -----------------------------------------------------------------------------

numbers = itertools.count()


def fresh() -> str:
    """A prompt of some blocks that nobody has asked before."""
    return f"{next(numbers):03}" + "the same words again, " * 6


@pytest.mark.parametrize("name", [name for name in CALLS if not name.startswith("ollama")])
def test_requests_of_two_salts_share_no_cached_tokens(scripted, name):
    call, text = CALLS[name], fresh()

    def cached(**headers: str) -> int:
        answer = scripted.post(call.path, call.body(text, 2), headers=headers)
        return call.cached(answer.json())

    assert cached() == 0
    plain = cached()
    assert plain > 0
    assert cached(**{"X-Cache-Salt": "one"}) == 0
    assert cached(**{"X-Cache-Salt": "two"}) == 0
    assert cached(**{"X-Cache-Salt": "one"}) == plain


def cached_in_worker(gate) -> int:
    return gate.status("scripted").load.cached_tokens


@pytest.mark.parametrize("path", ["/generate", "/api/chat", "/api/generate"])
def test_dialects_that_do_not_tell_keep_salts_apart_too(scripted, path):
    text = fresh()
    bodies = {"/generate": {"inputs": text, "parameters": {"max_new_tokens": 2}}}
    bodies |= {CALLS[n].path: CALLS[n].body(text, 2) for n in ("ollama chat", "ollama generate")}

    def cached(salt: str) -> int:
        before = cached_in_worker(scripted)
        assert scripted.post(path, bodies[path], headers={"X-Cache-Salt": salt}).is_success
        return cached_in_worker(scripted) - before

    assert cached("one") == 0
    assert cached("two") == 0
    assert cached("one") > 0


@pytest.mark.parametrize("name", ["chat", "completions", "responses"])
def test_a_body_may_name_its_salt_as_vllm_has_it(scripted, name):
    call, text = CALLS[name], fresh()

    def cached(salt: str) -> int:
        body = call.body(text, 2) | {"cache_salt": salt}
        return call.cached(scripted.post(call.path, body).json())

    assert [cached("one"), cached("two")] == [0, 0]
    assert cached("one") > 0


@pytest.mark.parametrize("name", CALLS)
def test_a_salt_that_is_too_long_is_refused_by_name(scripted, name):
    call = CALLS[name]
    headers = {"X-Cache-Salt": "s" * 1000}
    answer = scripted.post(call.path, call.body(SHORT, 2), headers=headers)
    assert answer.status_code == 400
    assert "cache_salt" in call.message(answer.json())


@pytest.fixture
def older(shared_dir, monkeypatch):
    """A gateway in front of a worker that says that it speaks protocol 1.0."""
    monkeypatch.setattr("llmkernel.protocol.PROTOCOL_VERSION", (1, 0))
    with serving(name="older") as served:
        files.write(msgspec.structs.replace(served.connection, protocol=(1, 0)))
        with gate(workers=("older",)) as plain:
            yield plain


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("stream", [False, True])
def test_a_salt_is_refused_for_a_worker_that_would_ignore_it(older, name, stream):
    call = CALLS[name]
    body = call.body(SHORT, 2) | ({"model": "older"} if "model" in call.body(SHORT, 2) else {})
    answer = older.post(call.path, body | {"stream": stream}, headers={"X-Cache-Salt": "mine"})
    assert answer.status_code == 502
    assert "would ignore cache_salt. Restart the worker" in call.message(answer.json())
    assert older.post(call.path, body).status_code == 200


def test_tgi_refuses_such_a_salt_too_and_counts_by_itself(older):
    body = {"inputs": SHORT, "parameters": {"max_new_tokens": 2}}
    salted = older.post("/generate", body, headers={"X-Cache-Salt": "mine"})
    assert salted.status_code == 426
    assert "Restart the worker" in salted.json()["error"]
    assert older.post("/generate", body).status_code == 200
    assert older.events("/generate_stream", body)[-1]["generated_text"] is not None
    long = older.post("/generate", body | {"inputs": "x" * 3000})
    assert (long.status_code, long.json()["error_type"]) == (422, "validation")
    assert "Given: 3001" in long.json()["error"]


class Asked:
    """As much of an Exchange as says who asks."""

    def __init__(self, principal: str, salt: str = "", limits: Limits | None = None) -> None:
        self.principal = principal
        self.gateway = self
        self.settings = Settings(limits=limits or Limits())
        self._salt = salt

    def header(self, name: str) -> str:
        assert name == "X-Cache-Salt"
        return self._salt


def test_users_that_jupyter_tells_apart_share_no_cached_tokens(scripted):
    replica = scripted.server.gateway.models.replicas["scripted"]
    text = fresh()

    def cached(principal: str, salt: str = "") -> int:
        terms = client_for(Asked(principal, salt), replica)._core._terms
        with Client(replica._connection) as client:
            asking = on_terms(client.aio, Terms(**terms))
            answer = asyncio.run(asking.generate(text, max_tokens=2))
        return answer.usage.cached_tokens

    assert cached("ann") == 0
    assert cached("bob") == 0
    assert cached("ann") > 0
    assert cached("token") == 0
    assert cached("token", "ann") == 0
    # nobody gets at another's by a salt of their own
    assert cached("an", "n") == 0
    assert cached("token", "3:ann") == 0
