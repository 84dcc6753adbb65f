"""The ollama package against a live gateway."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import ollama
import pytest

from llmkernel.gateway.ollama.keep_alive import KeepAlive
from tests.conftest import wait_until
from tests.gateway.conftest import ENDLESS
from tests.gateway.serving import TOKEN

pytestmark = pytest.mark.timeout(60)

USER = [{"role": "user", "content": "What is a worker?"}]
GREEDY = {"temperature": 0}
HEADERS = {"Authorization": f"Bearer {TOKEN}"}


def connected(gate, headers=HEADERS):
    return ollama.Client(host=gate.url, headers=headers)


@pytest.fixture
def client(scripted):
    with connected(scripted) as client:
        yield client


@pytest.fixture
def expected(scripted):
    llm = scripted.worker()
    return llm.chat(USER, temperature=0)


def test_chat(client, expected):
    answer = client.chat("scripted", USER, options=GREEDY)
    assert answer.message.content == expected.text
    assert (answer.done, answer.done_reason) == (True, "stop")
    assert answer.eval_count == expected.usage.completion_tokens
    assert answer.prompt_eval_count == expected.usage.prompt_tokens
    assert answer.total_duration > 0


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda client: client.copy("scripted", "other"), "not copied"),
        (lambda client: client.delete("scripted:latest"), "not deleted over HTTP"),
        (lambda client: client.create("other", from_="scripted"), "not made here"),
        (lambda client: client.push("scripted"), "not pushed"),
        (lambda client: client.embed("scripted", "text"), "Embeddings"),
        (lambda client: client.embeddings("scripted", "text"), "Embeddings"),
    ],
    ids=["copy", "delete", "create", "push", "embed", "embeddings"],
)
def test_what_is_not_supported_says_so(client, call, says):
    with pytest.raises(ollama.ResponseError, match=says) as error:
        call(client)
    assert error.value.status_code == 400


def test_models_that_there_are_not_are_not_found(client):
    for call in (lambda: client.copy("none", "other"), lambda: client.delete("none")):
        with pytest.raises(ollama.ResponseError, match="'none' does not run here") as error:
            call()
        assert error.value.status_code == 404


def test_a_blob_is_refused_and_a_route_that_is_none_is_not_found(scripted):
    digest = "sha256:" + "0" * 64
    blob = scripted.http.post(f"/api/blobs/{digest}", content=b"x")
    assert (blob.status_code, set(blob.json())) == (400, {"error"})
    none = scripted.get("/api/none")
    assert (none.status_code, set(none.json())) == (404, {"error"})


def test_a_streamed_chat(client, expected):
    lines = list(client.chat("scripted", USER, options=GREEDY, stream=True))
    assert "".join(line.message.content for line in lines) == expected.text
    assert [line.done for line in lines[:-1]] == [False] * (len(lines) - 1)
    assert lines[-1].done


def test_generate(client, expected, scripted):
    answer = client.generate("scripted:latest", "What is a worker?", options=GREEDY)
    assert answer.response == expected.text
    lines = client.generate("scripted", "What is a worker?", options=GREEDY, stream=True)
    assert "".join(line.response for line in lines) == expected.text
    raw = client.generate("scripted", "once", raw=True, options=GREEDY | {"num_predict": 8})
    llm = scripted.worker()
    assert raw.response == llm.generate("once", temperature=0, max_tokens=8).text
    assert raw.done_reason == "length"


def test_log_probabilities(client):
    answer = client.generate(
        "scripted", "x", logprobs=True, top_logprobs=1, options=GREEDY | {"num_predict": 3}
    )
    assert [entry.token for entry in answer.logprobs] == list(answer.response)
    assert all(entry.top_logprobs for entry in answer.logprobs)


def test_awaiting(scripted, expected):
    async def main():
        client = ollama.AsyncClient(host=scripted.url, headers=HEADERS)
        async with client._client:
            whole = await client.chat("scripted", USER, options=GREEDY)
            stream = await client.chat("scripted", USER, options=GREEDY, stream=True)
            pieces = [line.message.content async for line in stream]
        return {whole.message.content, "".join(pieces)}

    assert asyncio.run(main()) == {expected.text}


def test_the_models_there_are(client):
    (tag,) = client.list().models
    (running,) = client.ps().models
    assert tag.model == running.model == "scripted"
    assert running.context_length == 2048
    shown = client.show("scripted")
    assert shown.capabilities == ["completion"]
    assert any(name.endswith(".context_length") for name in shown.modelinfo)
    with pytest.raises(ollama.ResponseError) as missing:
        client.show("other")
    assert missing.value.status_code == 404


def test_the_version(scripted):
    assert set(scripted.get("/api/version").json()) == {"version"}


@pytest.mark.parametrize(
    ("fields", "status", "words"),
    [
        ({"options": {"temperature": -1}}, 400, "options.temperature"),
        ({"options": {"num_gpu": 1}}, 400, "options.num_gpu"),
        ({"options": {"num_ctx": 10**6}}, 400, "num_ctx"),
        ({"format": "json"}, 400, "format"),
        ({"think": True}, 400, "think"),
        ({"keep_alive": "soon"}, 400, "keep_alive"),
        ({"model": "other"}, 404, "does not run here"),
    ],
)
def test_errors_are_its_own_class(client, fields, status, words):
    with pytest.raises(ollama.ResponseError, match=words) as refused:
        client.chat(**{"model": "scripted", "messages": USER} | fields)
    assert refused.value.status_code == status


def test_a_stream_that_breaks_raises(worker, open_gate, scripted):
    worker("breaks", "scripted:fail_at_step=6,eos_after=1000")
    with connected(open_gate(workers=("breaks",))) as client:
        seen = []
        with pytest.raises(ollama.ResponseError, match="step"):
            seen.extend(client.chat("breaks", USER, options=GREEDY, stream=True))
    assert seen
    assert not any(line.done for line in seen)


def test_a_client_that_goes_away_takes_its_request_with_it(worker, open_gate, scripted):
    worker("endless", ENDLESS)
    gate = open_gate(workers=("endless",))
    with gate.http.stream(
        "POST", "/api/chat", json={"model": "endless", "messages": USER}
    ) as answer:
        lines = answer.iter_lines()
        for _ in range(5):
            next(lines)
        assert gate.status("endless").load.running == 1
    wait_until(
        lambda: gate.status("endless").load.running == 0, seconds=3, what="the request to end"
    )


def test_a_body_without_a_content_type_is_read(scripted):
    body = b'{"model": "scripted", "prompt": "x", "stream": false, "options": {"num_predict": 1}}'
    assert scripted.http.post("/api/generate", content=body).json()["done"]


def kept(gate, name: str) -> KeepAlive:
    return gate.server.gateway.models.replicas[name].keep


def test_keep_alive_lets_go_of_what_the_gateway_started(open_gate, scripted):
    gate = open_gate(workers=("scripted",), allow_models=("scripted:eos_after=3",))
    name = "scripted:eos_after=3"
    with connected(gate) as client:
        assert client.generate(name, keep_alive="1h").done_reason == "load"
        (own,) = [each for each in client.ps().models if each.model == name]
        assert kept(gate, worker_of(gate, name)) == 3600
        left = own.expires_at - datetime.now(UTC)
        assert timedelta(minutes=59) < left <= timedelta(hours=1)
        assert client.generate(name, "x", keep_alive=-1).response
        assert kept(gate, worker_of(gate, name)) is None
        assert client.generate(name, keep_alive=0).done_reason == "unload"
        wait_until(
            lambda: name not in [each.model for each in client.ps().models],
            seconds=10,
            what="the model to go",
        )


def test_keep_alive_ends_no_worker_of_somebody_else(client, scripted):
    assert client.generate("scripted", "x", keep_alive="1s").response
    assert kept(scripted, "scripted") is None
    with pytest.raises(ollama.ResponseError, match="llmkernel stop"):
        client.generate("scripted", keep_alive=0)


def worker_of(gate, model: str) -> str:
    replicas = gate.server.gateway.models.replicas.values()
    return next(replica.name for replica in replicas if replica.model == model)
