"""Each dialect words every failure as its clients expect, and says no more than it may."""

from __future__ import annotations

import json

import msgspec
import pytest

from llmkernel.errors import TABLE, Overloaded, PromptTooLong, from_code
from llmkernel.gateway.anthropic.dialect import ANTHROPIC
from llmkernel.gateway.faults import Failure, Refusal, failure_of
from llmkernel.gateway.ollama.dialect import OLLAMA
from llmkernel.gateway.openai.dialect import OPENAI

TURN = [{"role": "user", "content": "x"}]
KINDS = ["unauthorized", "forbidden", "not_found", "method", "too_large", "syntax", "shape"]
NOT_THEIRS = (408, 424, 426, 499)
"""Below 500 in the table, and still nothing that the sender of the request did."""
FAILURES = [failure_of(from_code(code, "It broke.")) for code in TABLE]
FAILURES += [failure_of(Refusal(kind, "It broke.")) for kind in KINDS]


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: failure.code)
def test_every_failure_has_a_shape(failure):
    openai, anthropic, ollama = (each.reply(failure) for each in (OPENAI, ANTHROPIC, OLLAMA))
    error = json.loads(openai.body)["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"] == "It broke."
    assert json.loads(anthropic.body)["type"] == "error"
    assert set(json.loads(anthropic.body)["error"]) == {"type", "message"}
    assert json.loads(ollama.body) == {"error": "It broke."}
    for reply in (openai, anthropic, ollama):
        assert 400 <= reply.status < 600
        assert (reply.status >= 500) == (failure.status >= 500 or failure.status in NOT_THEIRS)


def test_what_is_wrong_with_a_request_is_a_400():
    failure = failure_of(PromptTooLong("Too long.", needed=9, limit=4))
    replies = [dialect.reply(failure) for dialect in (OPENAI, ANTHROPIC, OLLAMA)]
    assert [reply.status for reply in replies] == [400, 400, 400]
    error = json.loads(replies[0].body)["error"]
    assert error["code"] == "context_length_exceeded"
    # litellm and others know it by these words
    assert error["message"] == "This model's maximum context length is 4 tokens. Too long."


def test_a_full_queue_says_when_to_try_again():
    failure = failure_of(Overloaded("Full."))
    for dialect in (OPENAI, ANTHROPIC, OLLAMA):
        reply = dialect.reply(failure)
        assert (reply.status, reply.headers["Retry-After"]) == (429, "1")


def test_a_broken_stream_ends_without_the_sign_of_a_whole_one():
    failure = Failure(500, "step_failed", "It broke.")
    assert OPENAI.last_words(failure).startswith(b'data: {"error":{"message":"It broke."')
    assert ANTHROPIC.last_words(failure).startswith(b"event: error\ndata: {")
    assert OLLAMA.last_words(failure) == b'{"error":"It broke."}\n'
    for dialect in (OPENAI, ANTHROPIC):
        words = dialect.last_words(failure)
        assert words.endswith(b"\n\n")
        assert b"[DONE]" not in words
        assert b"message_stop" not in words


@pytest.mark.parametrize(
    "path",
    ["/chat/completions", "/completions", "/embeddings", "/responses", "/models", "/models/demo"],
)
def test_a_forgotten_version_is_told_to_openais_clients(scripted, path):
    answer = scripted.post(path, {})
    assert answer.status_code == 404
    assert "OpenAI's routes are under /v1" in answer.json()["error"]["message"]


def test_a_forgotten_or_doubled_version_is_told_to_anthropics_clients(scripted):
    for path, says in (("/messages", "under /v1"), ("/v1/v1/messages", "has /v1 twice")):
        answer = scripted.post(path, {})
        assert answer.status_code == 404
        assert says in answer.json()["error"]["message"]
        assert answer.json()["type"] == "error"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}]}),
        ("/v1/messages", {"messages": [{"role": "user", "content": "x"}], "max_tokens": 1}),
        ("/api/chat", {"messages": [{"role": "user", "content": "x"}]}),
        ("/api/show", {}),
    ],
)
def test_a_mistyped_model_is_named_with_the_near_one(scripted, path, body):
    answer = scripted.post(path, body | {"model": "Scriptet"})
    assert answer.status_code == 404
    said = "The model 'Scriptet' does not run here. Did you mean 'scripted'? There are: scripted."
    assert said in answer.text
    long = scripted.post(path, body | {"model": "x\n\u202e" + "y" * 5000})
    assert "'x" + "y" * 79 + "…'" in long.text
    assert len(long.content) < 400


def test_a_path_of_a_mistyped_model_is_told_too(scripted):
    error = scripted.get("/v1/models/scriptd").json()["error"]
    assert "Did you mean 'scripted'?" in error["message"]


def test_without_any_worker_a_request_says_how_to_start_one(open_gate, scripted):
    gate = open_gate(allow_models=())
    gate.server.gateway.models._settings = msgspec.structs.replace(
        gate.server.settings, workers=("nobody",)
    )
    for replica in list(gate.server.gateway.models.replicas):
        gate.loop.call_soon_threadsafe(gate.server.gateway.models.replicas.pop, replica)
    answer = gate.post("/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}]})
    assert answer.status_code == 404
    assert answer.json()["error"]["message"] == ("No worker runs: `llmkernel start` starts one.")


@pytest.mark.parametrize(
    ("path", "body", "says"),
    [
        ("/v1/chat/completions", {"messages": [], "max_token": 5}, "'max_tokens'"),
        ("/v1/chat/completions", {"messages": [{"role": "user", "contents": 1}]}, "'content'"),
        (
            "/v1/chat/completions",
            {"messages": [], "stream_options": {"includes_usage": True}},
            "'include_usage'",
        ),
        (
            "/v1/messages",
            {"messages": [], "max_tokens": 1, "stop_sequence": []},
            "'stop_sequences'",
        ),
        ("/api/chat", {"model": "x", "options": {"temperatur": 1}}, "'temperature'"),
        ("/generate", {"inputs": "x", "parameters": {"max_new_token": 1}}, "'max_new_tokens'"),
    ],
)
def test_a_mistyped_field_is_answered_with_the_near_one(scripted, path, body, says):
    answer = scripted.post(path, body)
    assert answer.status_code in (400, 422)
    assert f". Did you mean {says}?" in answer.text
    far = scripted.post(path, {**body, "zzzzzz": 1})
    assert "Did you mean 'z" not in far.text


@pytest.mark.parametrize(
    ("path", "body", "says"),
    [
        ("/v1/messages", {"messages": TURN, "max_tokens": 0}, "max_tokens must be at least 1."),
        (
            "/api/chat",
            {"model": "scripted", "messages": TURN, "options": {"num_predict": 0}},
            "options.num_predict must be at least 1.",
        ),
        (
            "/v1/chat/completions",
            {"messages": TURN, "max_tokens": 0},
            "max_tokens must be at least 1.",
        ),
        ("/v1/responses", {"input": "x", "max_output_tokens": 0}, "max_output_tokens must be at"),
        ("/v1/completions", {"prompt": "x", "max_tokens": 0}, "0 only scores a prompt, with echo."),
    ],
)
def test_an_answer_of_no_tokens_is_refused_in_the_words_of_the_dialect(scripted, path, body, says):
    answer = scripted.post(path, body)
    assert answer.status_code == 400
    assert says in answer.text
    assert "prompt_logprobs" not in answer.text


@pytest.mark.parametrize("prompt", [[-1], [1, 2**31], [1, 10**6], [[1], [10**6]]])
def test_a_bad_token_id_names_its_field(scripted, prompt):
    answer = scripted.post("/v1/completions", {"prompt": prompt, "max_tokens": 1})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "prompt")
    tokens = prompt if isinstance(prompt[0], int) else prompt[1]
    error = scripted.post("/detokenize", {"tokens": tokens}).json()["error"]
    assert error["param"] == "tokens"


def test_another_method_is_told_in_words(scripted):
    answer = scripted.get("/generate")
    assert (answer.status_code, answer.headers["Allow"]) == (405, "POST")
    assert answer.json() == {"error": "Use POST here.", "error_type": "method"}
