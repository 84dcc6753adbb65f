"""A worker that dies is not an unknown model, and one that was stopped is."""

from __future__ import annotations

import json
import os
import signal
import threading

import pytest

from llmkernel import launcher
from llmkernel.connection import Connection
from tests.conftest import wait_until
from tests.gateway.conftest import ENDLESS
from tests.gateway.serving import Gate, gate

TURNS = [{"role": "user", "content": "Hello"}]
CHAT = {"messages": TURNS, "max_tokens": 2}
LONG = {"model": "mortal", "messages": TURNS, "max_tokens": 5000, "stream": True}
ASKING = {
    "/v1/chat/completions": CHAT,
    "/v1/completions": {"prompt": "Hello", "max_tokens": 2},
    "/v1/responses": {"input": "Hello", "max_output_tokens": 2},
    "/v1/messages": CHAT,
    "/api/chat": {"messages": TURNS, "stream": False},
    "/api/generate": {"prompt": "Hello", "stream": False},
}


def kill(worker: Connection) -> None:
    os.kill(worker.pid, signal.SIGKILL)
    wait_until(lambda: not worker.alive, seconds=5, what="its end")


DESCRIBING = {
    "/v1/messages/count_tokens": {"messages": TURNS},
    "/chat_tokenize": {"messages": TURNS},
    "/detokenize": {"tokens": [1]},
    "/apply-template": {"messages": TURNS},
    "/api/show": {},
}


def ask(to: Gate, path: str = "/v1/chat/completions", model: str = "mortal"):
    return to.post(path, ASKING[path] | {"model": model})


@pytest.fixture
def mortal(start_worker):
    return start_worker("scripted:eos_after=3", name="mortal")


@pytest.fixture
def other(start_worker):
    return start_worker("scripted:eos_after=4", name="other")


def test_a_worker_that_died_is_503_in_every_dialect(mortal, other):
    with gate() as both:
        assert ask(both).status_code == 200
        kill(mortal)
        for path in ASKING:
            answer = ask(both, path)
            anthropic = path == "/v1/messages"
            assert answer.status_code == (529 if anthropic else 503), path
            assert answer.headers["Retry-After"].isdecimal()
            error = answer.json()["error"]
            said = error if isinstance(error, str) else error["message"]
            assert "'mortal' has died" in said
            if path.startswith("/v1/"):
                assert error["type"] == "overloaded_error"
            assert ask(both, path, model="unknown").status_code == 404, path
            assert ask(both, path, model="other").status_code == 200, path
        answer = both.get("/info?model=mortal")
        assert (answer.status_code, answer.json()["error_type"]) == (503, "healthcheck")
        assert ask(both, model="scripted:eos_after=3").status_code == 503, "by its model"
        assert ask(both, "/api/chat", model="mortal:latest").status_code == 503


def test_whoever_asks_what_a_dead_worker_is_hears_the_same(mortal, other):
    with gate() as both:
        assert ask(both).status_code == 200
        kill(mortal)
        answers = {
            path: both.post(path, body | {"model": "mortal"}) for path, body in DESCRIBING.items()
        }
        for path in ("/v1/models/mortal", "/v2/models/mortal", "/v2/models/mortal/ready"):
            answers[path] = both.get(path)
        for path, answer in answers.items():
            anthropic = path.startswith("/v1/messages")
            assert answer.status_code == (529 if anthropic else 503), path
            assert "'mortal' has died" in answer.text, path


def test_the_only_worker_that_died_is_503_for_who_names_none(mortal):
    body = {"inputs": "Hello", "parameters": {"max_new_tokens": 2}}
    with gate() as alone:
        assert alone.post("/generate", body).status_code == 200
        kill(mortal)
        answer = alone.post("/generate", body)
        assert (answer.status_code, answer.json()["error_type"]) == (503, "healthcheck")
        assert answer.headers["Retry-After"].isdecimal()


def test_one_that_died_and_runs_again_is_served_and_may_be_stopped(mortal, other, start_worker):
    with gate() as both:
        assert ask(both).status_code == 200
        kill(mortal)
        assert ask(both).status_code == 503
        again = start_worker("scripted:eos_after=3", name="mortal")
        assert ask(both).status_code == 200
        launcher.stop(again)
        assert ask(both).status_code == 404


@pytest.mark.parametrize("way", ["stop", "client", "kill"])
def test_one_that_was_stopped_is_unknown(mortal, other, way):
    with gate() as both:
        assert ask(both).status_code == 200
        if way == "stop":
            launcher.stop(mortal)
        elif way == "client":
            both.worker("mortal").stop()
        else:
            launcher.kill(mortal)  # llmkernel stop --kill
        # it may be seen between its end and the removal of its file, and then looks as if it had died
        wait_until(lambda: ask(both).status_code == 404, seconds=5, what="its name to be unknown")


def test_the_start_of_another_worker_does_not_make_it_unknown(mortal, other, start_worker):
    with gate() as both:
        assert ask(both).status_code == 200
        kill(mortal)
        assert ask(both).status_code == 503
        lost = both.server.gateway.models.lost
        wait_until(lambda: not lost.doubtful, seconds=10, what="its end to be past doubt")
        start_worker("scripted:eos_after=5", name="third")
        assert not mortal.path.exists(), "a start clears up what dead workers left"
        assert ask(both, model="third").status_code == 200
        assert ask(both).status_code == 503


def test_one_whose_engine_died_is_503(start_worker, other):
    start_worker("scripted:eos_after=1000,die_at_step=2", name="mortal")
    with gate() as both:
        broken = ask(both)
        assert (broken.status_code, broken.json()["error"]["code"]) == (503, "engine_died")
        wait_until(
            lambda: "mortal" not in both.server.gateway.models.replicas, seconds=10, what="its end"
        )
        assert ask(both).status_code == 503


def test_a_model_of_the_list_is_loaded_again(other):
    with gate(allow_models=("scripted:eos_after=3",)) as lazy:
        assert ask(lazy, model="scripted:eos_after=3").status_code == 200
        replica = next(
            each for each in lazy.server.gateway.models.replicas.values() if each.name != "other"
        )
        kill(replica.connection)
        assert ask(lazy, model="scripted:eos_after=3").status_code == 200
        assert lazy.post("/v2/repository/models/scripted:eos_after=3/unload").status_code == 200


def test_an_answer_on_its_way_ends_as_its_worker_does(start_worker, other):
    """Also where the file of the worker goes first, as it does with `llmkernel stop --kill`."""
    mortal = start_worker(ENDLESS, name="mortal")
    with gate() as both:
        replicas = both.server.gateway.models.replicas
        with both.http.stream("POST", "/v1/messages", json=LONG) as answer:
            lines = answer.iter_lines()
            next(lines)
            mortal.path.unlink()
            wait_until(lambda: "mortal" not in replicas, seconds=10, what="it to be missed")
            for _ in range(30):
                assert "error" not in next(lines)
            kill(mortal)
            assert f"The worker 'mortal' (process {mortal.pid}) died." in list(lines)[-2]


def test_a_stream_of_a_worker_that_is_stopped_comes_to_its_end(start_worker, other):
    mortal = start_worker("scripted:step_ms=20,eos_after=60", name="mortal")
    body = {"inputs": "Hello", "parameters": {"max_new_tokens": 100, "details": True}}
    with gate(workers=("mortal",)) as alone:
        with alone.http.stream("POST", "/generate_stream", json=body) as answer:
            lines = answer.iter_lines()
            next(lines)
            stop = threading.Thread(target=lambda: launcher.stop(mortal))
            stop.start()
            last = json.loads([line for line in lines if line][-1].removeprefix("data:"))
        stop.join(30)
    assert last.get("error") is None
    assert last["details"]["finish_reason"] == "eos_token"
