"""Which worker answers: by name, by load, loaded on demand, let go when idle."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time

import httpx
import pytest

from llmkernel.errors import WorkerNotFound
from tests.conftest import wait_until
from tests.gateway.conftest import ENDLESS
from tests.gateway.serving import Gate, gate

SHORT = {"inputs": "x", "parameters": {"max_new_tokens": 2}}
LOADABLE = "scripted:load_ms=300"
NAME = "scripted-load_ms-300"


def state(gate: Gate, model: str) -> str:
    entries = gate.post("/v2/repository/index").json()
    return next((each["state"] for each in entries if each["name"] == model), "absent")


def requests_of(gate: Gate, name: str) -> int:
    return gate.status(name).load.requests_finished


@pytest.fixture
def one_worker(start_worker):
    return start_worker(name="first")


def test_replicas_share_the_requests_of_their_model(start_worker):
    slow = "scripted:step_ms=20"
    start_worker(slow, name="one")
    start_worker(slow, name="two")
    with gate() as two:
        body = {"inputs": "x", "parameters": {"max_new_tokens": 30}}
        threads = [threading.Thread(target=lambda: two.post("/generate", body)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert (requests_of(two, "one"), requests_of(two, "two")) == (4, 4)
        assert [each["name"] for each in two.post("/v2/repository/index").json()] == [slow, slow]


def test_a_request_names_a_worker_or_a_model(one_worker, start_worker):
    start_worker("scripted:context_length=100", name="second")
    with gate() as both:
        lengths = {
            name: both.get(f"/info?model={name}").json()["max_total_tokens"]
            for name in (
                "first",
                "second",
                "scripted",
                "scripted:context_length=100",
                "tgi",
                "dummy",
            )
        }
        assert lengths == {
            "first": 2048, "second": 100, "scripted": 2048, "scripted:context_length=100": 100,
            "tgi": 2048, "dummy": 2048,
        }  # fmt: skip
        unknown = both.get("/info?model=unknown")
        assert unknown.status_code == 404
        assert "scripted:context_length=100" in unknown.json()["error"]
    with gate(workers=("second",)) as only:
        assert only.get("/info").json()["max_total_tokens"] == 100
        assert only.get("/info?model=first").status_code == 404
    with pytest.raises(WorkerNotFound, match="nobody"), gate(workers=("nobody",)):
        pass


def test_workers_that_come_and_go_are_seen(one_worker, start_worker):
    with gate() as running:
        start_worker("scripted:context_length=100", name="later")
        assert running.get("/info?model=later").status_code == 200
        running.status("later")
        running.worker("later").stop()
        wait_until(
            lambda: running.get("/info?model=later").status_code == 404, seconds=5, what="its end"
        )
        assert running.post("/generate", SHORT).status_code == 200


def test_a_worker_that_does_not_answer_holds_up_only_who_names_it(one_worker, start_worker):
    mute = start_worker("scripted:context_length=100", name="mute")
    with gate() as both:
        models = both.server.gateway.models
        os.kill(mute.pid, signal.SIGSTOP)
        for _ in range(2):  # before and after the gateway has noticed
            began = time.monotonic()
            assert both.get("/info?model=unknown").status_code == 404
            assert both.post("/generate", SHORT).status_code == 200
            assert time.monotonic() - began < 2
            wait_until(lambda: models.replicas["mute"].silent, seconds=10, what="its silence")
        began = time.monotonic()
        answer = both.get("/info?model=mute")
        assert (answer.status_code, "does not answer" in answer.json()["error"]) == (503, True)
        assert time.monotonic() - began < 3
        reports = {models.replicas["first"].report.uptime for _ in range(30) if not time.sleep(0.1)}
        assert len(reports) >= 2, "others are asked once a second as ever"
        os.kill(mute.pid, signal.SIGCONT)
        wait_until(lambda: both.get("/info?model=mute").status_code == 200, seconds=5, what="it")


def test_a_model_of_the_list_is_loaded_by_the_first_who_names_it(one_worker):
    with gate(allow_models=(LOADABLE,)) as lazy:
        assert state(lazy, LOADABLE) == "UNAVAILABLE"
        answers: list = []
        threads = [
            threading.Thread(
                target=lambda: answers.append(lazy.get(f"/info?model={LOADABLE}").status_code)
            )
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        wait_until(lambda: state(lazy, LOADABLE) == "LOADING", seconds=10, what="the load")
        assert lazy.post("/generate", SHORT).status_code == 200, "others are served meanwhile"
        for thread in threads:
            thread.join(30)
        assert answers == [200] * 4
        assert state(lazy, LOADABLE) == "READY"
        refused = lazy.get("/info?model=scripted:load_ms=1")
        assert refused.status_code == 404
        assert lazy.post(f"/v2/repository/models/{LOADABLE}/unload").status_code == 200
        assert state(lazy, LOADABLE) == "UNAVAILABLE"


def test_triton_loads_unloads_and_tells_readiness(one_worker):
    with gate(allow_models=(LOADABLE,)) as triton:
        ready = f"/v2/models/{LOADABLE}/ready"
        assert triton.get(ready).status_code == 404
        assert triton.post(f"/v2/repository/models/{LOADABLE}/load").status_code == 200
        assert triton.get(ready).json() == {"live": True}
        assert triton.get(f"/v2/models/{LOADABLE}/versions/1/ready").status_code == 200
        assert triton.get(f"/v2/models/{LOADABLE}").json()["name"] == LOADABLE
        assert triton.post(f"/v2/repository/models/{LOADABLE}/load").status_code == 200
        assert triton.post(f"/v2/repository/models/{LOADABLE}/unload").status_code == 200
        assert triton.get(ready).status_code == 404
        for path in ("/v2/health/live", "/v2/health/ready", "/health", "/ping"):
            assert triton.get(path).status_code == 200
        assert triton.get("/v2").json()["name"] == "llmkernel"
        only = triton.post("/v2/repository/index", {"ready": True}).json()
        assert [each["name"] for each in only] == ["scripted"]


def test_a_model_of_triton_has_one_version_and_takes_no_tensors(one_worker):
    with gate() as triton:
        about = triton.get("/v2/models/first/versions/1").json()
        assert about == triton.get("/v2/models/first").json()
        for path in ("/v2/models/first/versions/2", "/v2/models/first/versions/2/ready"):
            answer = triton.get(path)
            assert (answer.status_code, "version 1 alone" in answer.json()["error"]) == (404, True)
        for path in ("/v2/models/first/infer", "/v2/models/first/versions/1/infer"):
            answer = triton.post(path, {"inputs": []})
            assert answer.status_code == 400
            assert answer.json()["error"].startswith("Tensors are not taken")


def test_what_triton_may_not_do(one_worker):
    with gate(allow_models=("scripted:fail_load=model_gated",)) as triton:
        for path, body in (
            ("/v2/repository/models/other/model/load", {}),
            ("/v2/repository/models/first/unload", {}),  # somebody else's worker
            ("/v2/repository/models/first/load", {"parameters": {"config": "{}"}}),
        ):
            answer = triton.post(path, body)
            assert answer.status_code == 400
            assert set(answer.json()) == {"error"}
            if path.endswith("load") and not body:
                assert repr(path.split("/models/")[1].rpartition("/")[0]) in answer.json()["error"]
        for method, path in (
            ("POST", "/v2/repository/models/frist/unload"),
            ("GET", "/v2/models/frist"),
            ("GET", "/v2/models/frist/ready"),
        ):
            answer = triton.http.request(method, path)
            assert answer.status_code == 404
            said = answer.json()["error"]
            assert said.startswith("The model 'frist' does not run here. Did you mean 'first'?")
        failed = "scripted:fail_load=model_gated"
        assert triton.post(f"/v2/repository/models/{failed}/load").status_code == 403
        (entry,) = (
            each for each in triton.post("/v2/repository/index").json() if each["name"] == failed
        )
        assert entry["state"] == "UNAVAILABLE"
        assert entry["reason"]
        assert one_worker.alive
        triton.worker("first").stop()
        models = triton.server.gateway.models
        wait_until(lambda: not models.replicas, seconds=10, what="its end to be seen")
        assert triton.get("/health").status_code == 503, "no request is served by a failed load"


def test_an_idle_model_is_let_go_and_never_with_work_in_flight(one_worker, runtime_dir):
    with gate(allow_models=(ENDLESS,), unload_after=0.5) as lazy:
        name = lazy.server.gateway.models.loader.config(ENDLESS).name
        assert lazy.get(f"/info?model={ENDLESS}").status_code == 200
        models = lazy.server.gateway.models
        client = lazy.worker(name)
        # somebody else's work there, which the gateway has no part in
        stream = client.stream("y", max_tokens=600, temperature=0)
        wait_until(lambda: models.replicas[name].report.load.running, seconds=5, what="its report")
        time.sleep(1.5)
        assert not models.replicas[name].leaving
        assert sum(len(delta.token_ids) for delta in stream) == 600
        wait_until(lambda: name not in models.replicas, seconds=10, what="it to be let go")
        assert lazy.get(f"/info?model={ENDLESS}").status_code == 200, "it is loaded again"
        models.keep(ENDLESS, 0.0)
        wait_until(lambda: name not in models.replicas, seconds=10, what="it to be let go")
        assert one_worker.alive, "others are not its to stop"
    assert lazy.server.gateway.models.replicas == {}


@pytest.mark.parametrize("asked", [LOADABLE, NAME, ""])
def test_a_model_given_at_the_start_is_loaded_again_after_it_was_let_go(runtime_dir, asked):
    with gate((LOADABLE,), unload_after=3600) as own:
        models = own.server.gateway.models
        models.keep(LOADABLE, 0.0)
        wait_until(lambda: not models.replicas, seconds=10, what="it to be let go")
        assert state(own, LOADABLE) == "UNAVAILABLE"
        for path in ("/health", "/ping", "/v2/health/ready"):
            assert own.get(path).status_code == 200, "who watches it keeps sending it requests"
        assert own.get("/v1/models").json()["data"][0]["id"] == LOADABLE
        assert own.get(f"/info?model={asked}").json()["model_id"] == LOADABLE
        assert models.replicas[NAME].keep == 3600
        own.post(f"/v2/repository/models/{LOADABLE}/unload")


def test_what_triton_unloads_it_may_load_again(one_worker):
    with gate((LOADABLE,)) as triton:
        for name in (LOADABLE, NAME):
            for step in ("unload", "load"):
                path = f"/v2/repository/models/{name}/{step}"
                assert triton.post(path).status_code == 200, path
        triton.worker(NAME).stop()
        wait_until(lambda: state(triton, LOADABLE) == "absent", seconds=10, what="its end")
        refused = triton.get(f"/info?model={LOADABLE}")
        assert refused.status_code == 404, "who stopped it was not the gateway"


def test_a_worker_that_took_over_a_name_is_not_the_gateways(one_worker, start_worker):
    with gate((LOADABLE,), unload_after=3600) as own:
        models = own.server.gateway.models
        assert models.replicas[NAME].keep == 3600
        own.worker(NAME).stop()
        started = start_worker(LOADABLE, name=NAME)
        wait_until(
            lambda: NAME in models.replicas and models.replicas[NAME].instance == started.instance,
            seconds=10,
            what="the new one to be seen",
        )
        assert models.replicas[NAME].keep is None
        assert own.post(f"/v2/repository/models/{NAME}/unload").status_code == 400
        assert started.alive


def test_a_worker_that_ran_already_is_not_the_gateways(one_worker, start_worker):
    outside = start_worker(LOADABLE, name=NAME)
    with gate((LOADABLE,), workers=("first",), unload_after=3600) as own:
        assert own.get(f"/info?model={NAME}").status_code == 200
        assert own.server.gateway.models.replicas[NAME].keep is None
        assert own.post(f"/v2/repository/models/{NAME}/unload").status_code == 400
        assert outside.alive


def test_a_worker_that_was_seen_while_it_loaded_is_the_gateways(one_worker):
    slow = "scripted:load_ms=2500"
    with gate(unload_after=3600) as own:
        models = own.server.gateway.models
        asyncio.run_coroutine_threadsafe(models.load(slow), own.loop).result(30)
        (replica,) = (each for each in models.replicas.values() if each.model == slow)
        assert replica.keep == 3600
        assert own.post(f"/v2/repository/models/{replica.name}/unload").status_code == 200


def test_an_unload_waits_for_the_gateways_own_requests(one_worker):
    """However long they take: the worker itself would cut them after its drain."""
    with gate(allow_models=(ENDLESS,)) as lazy:
        name = lazy.server.gateway.models.loader.config(ENDLESS).name
        assert lazy.get(f"/info?model={ENDLESS}").status_code == 200
        replica = lazy.server.gateway.models.replicas[name]
        with replica.hold():
            unload = threading.Thread(
                target=lambda: lazy.post(f"/v2/repository/models/{ENDLESS}/unload")
            )
            unload.start()
            wait_until(lambda: replica.leaving, seconds=5, what="the unload")
            time.sleep(0.3)
            assert lazy.status(name).state == "ready"
        unload.join(30)
        assert name not in lazy.server.gateway.models.replicas


def test_an_unload_goes_on_without_the_client_that_asked_for_it(one_worker):
    with gate(allow_models=(ENDLESS,)) as lazy:
        unload = f"/v2/repository/models/{ENDLESS}/unload"
        assert lazy.get(f"/info?model={ENDLESS}").status_code == 200
        (replica,) = (
            each for each in lazy.server.gateway.models.replicas.values() if each.model == ENDLESS
        )
        with replica.hold():
            with pytest.raises(httpx.ReadTimeout):
                lazy.post(unload, timeout=0.5)
            again: list = []
            second = threading.Thread(target=lambda: again.append(lazy.post(unload).status_code))
            second.start()
            time.sleep(0.3)
            assert state(lazy, ENDLESS) == "UNLOADING"
        second.join(20)
        assert again == [200], "whoever asks again waits for the same end"
        assert state(lazy, ENDLESS) == "UNAVAILABLE"
        assert lazy.get(f"/info?model={ENDLESS}").status_code == 200
        assert lazy.post(unload).status_code == 200


@pytest.mark.parametrize("given", ["models", "allow_models"])
def test_a_request_that_meets_an_unload_waits_and_has_it_loaded_again(one_worker, given):
    with gate(**{given: (LOADABLE,)}) as lazy:
        assert lazy.get(f"/info?model={LOADABLE}").status_code == 200
        unload = threading.Thread(
            target=lambda: lazy.post(f"/v2/repository/models/{LOADABLE}/unload")
        )
        unload.start()
        codes = [lazy.get(f"/info?model={LOADABLE}").status_code for _ in range(3)]
        unload.join(30)
        assert codes == [200] * 3
        lazy.post(f"/v2/repository/models/{LOADABLE}/unload")
