"""Who comes while a model loads: requests, health, unloads, and the clock of --unload-after."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from tests.conftest import wait_until
from tests.gateway.serving import Gate, gate

SLOW = "scripted:load_ms=2500"
NAME = "scripted-load_ms-2500"
UNLOAD = f"/v2/repository/models/{SLOW}/unload"


@contextmanager
def loading(own: Gate) -> Iterator[list[int]]:
    """While somebody's request has the model loaded; the status of the answer once it is over."""
    statuses: list[int] = []
    first = threading.Thread(
        target=lambda: statuses.append(own.get(f"/info?model={SLOW}").status_code)
    )
    first.start()
    replicas = own.server.gateway.models.replicas
    wait_until(lambda: NAME in replicas, seconds=10, what="its connection file to be seen")
    assert not replicas[NAME].ready
    yield statuses
    first.join(30)


@pytest.mark.parametrize("asked", [SLOW, NAME, ""])
def test_who_comes_while_a_model_loads_waits_for_the_same_load(runtime_dir, asked):
    with gate((SLOW,)) as own:
        own.post(UNLOAD)
        with loading(own) as first:
            for path in ("/health", "/ping", "/v2/health/ready"):
                assert own.get(path).status_code == 200, "who watches it keeps sending it requests"
            assert own.get(f"/info?model={asked}").status_code == 200
        assert first == [200]
        own.post(UNLOAD)


def test_an_unload_while_a_model_loads_ends_it_once_who_waits_is_served(runtime_dir):
    body = {"inputs": "x", "parameters": {"max_new_tokens": 20}}
    with gate((SLOW,)) as own:
        own.post(UNLOAD)
        with loading(own) as first, ThreadPoolExecutor(9) as pool:
            asked = [pool.submit(own.post, "/generate", body) for _ in range(8)]
            unload = pool.submit(own.post, UNLOAD)
            assert [each.result().status_code for each in asked] == [200] * 8
            assert unload.result().status_code == 200
        assert first == [200]
        own.post(UNLOAD)
        assert own.server.gateway.models.unloaded() == {SLOW: ""}


def test_an_unload_as_soon_as_a_load_begins_ends_it_too(runtime_dir):
    with gate((SLOW,)) as own:
        models = own.server.gateway.models
        own.post(UNLOAD)
        load = asyncio.run_coroutine_threadsafe(
            models.loader.load(models.loader.config(SLOW)), own.loop
        )
        wait_until(lambda: models.loader.loads, seconds=5, what="the load")
        assert not models.replicas
        assert own.post(UNLOAD).status_code == 200
        assert load.done()
        assert models.unloaded() == {SLOW: ""}


def test_an_unload_of_what_does_not_run_is_no_error(runtime_dir):
    with gate((SLOW,)) as own:
        assert own.post(UNLOAD).status_code == 200
        assert own.post(UNLOAD).status_code == 200
        said = own.get(f"/v2/models/{SLOW}").json()["error"]
        assert said == f"The model {SLOW!r} does not run here. There are: {SLOW}."


def test_the_time_that_a_model_took_to_load_is_not_time_without_work(runtime_dir):
    """Else one that loads for longer than --unload-after leaves before it has served anybody."""
    with gate((SLOW,), unload_after=3600) as own:
        own.post(UNLOAD)
        load = asyncio.run_coroutine_threadsafe(own.server.gateway.models.load(SLOW), own.loop)
        assert load.result(30).idle_seconds < 0.5
        own.post(UNLOAD)
