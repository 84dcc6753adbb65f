"""/api/pull against a hub on loopback: how far it is, how it ends, who may ask for what."""

from __future__ import annotations

import contextlib
from pathlib import Path

import ollama
import psutil
import pytest

import llmkernel
from llmkernel.gateway.ollama.pull import MOST_DOWNLOADS
from tests.conftest import wait_until
from tests.gateway.serving import TOKEN
from tests.loader.hub_server import serving

pytestmark = pytest.mark.timeout(60)

DEMO = Path(llmkernel.__file__).parent / "demo"


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """A hub that has the embedded model as org/model."""
    with serving(DEMO) as running, pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_ENDPOINT", running.url)
        patch.setenv("HF_HOME", str(tmp_path_factory.mktemp("hf")))
        patch.setenv("NO_PROXY", "*")
        yield running


@pytest.fixture
def client(scripted, open_gate, hub):
    gate = open_gate(workers=("scripted",), allow_models=("org/model", "org/gone"))
    with ollama.Client(host=gate.url, headers={"Authorization": f"Bearer {TOKEN}"}) as client:
        yield client


def downloads() -> list[psutil.Process]:
    found = []
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):  # it ends just now
            if "llmkernel.worker.pull" in child.cmdline():
                found.append(child)
    return found


def test_a_download_says_how_far_it_is(client, hub):
    hub.seconds = 1.0
    steps = list(client.pull("org/model", stream=True))
    assert steps[0].status == "pulling manifest"
    assert steps[-1].status == "success"
    moving = [step for step in steps if step.total]
    assert moving[-1].completed == moving[-1].total > 2**20
    assert [step.completed for step in moving] == sorted(step.completed for step in moving)
    assert "model.safetensors" in hub.served


def test_what_is_there_already_needs_no_second_download(client, hub):
    assert client.pull("org/model").status == "success"
    hub.served.clear()
    assert client.pull("org/model").status == "success"
    assert hub.served == []
    assert [step.status for step in client.pull("scripted", stream=True)] == ["success"]


def test_a_model_that_the_hub_has_not_ends_with_an_error(client):
    with pytest.raises(ollama.ResponseError, match="org/gone"):
        list(client.pull("org/gone", stream=True))
    with pytest.raises(ollama.ResponseError) as missing:
        client.pull("org/gone")
    assert missing.value.status_code == 404


def test_a_model_outside_the_list_is_refused(client):
    with pytest.raises(ollama.ResponseError, match="--allow-model") as refused:
        client.pull("org/other")
    assert refused.value.status_code == 400


@pytest.mark.parametrize("path", ["/api/pull", "/api/show"])
def test_a_model_has_to_be_named(scripted, path):
    for body in ({}, {"model": ""}, {"name": None}):
        assert scripted.post(path, body).status_code == 400


def test_downloads_have_a_bound(client, hub, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    hub.seconds = 20.0
    running = [client.pull("org/model", stream=True) for _ in range(MOST_DOWNLOADS)]
    for steps in running:
        assert next(steps).status == "pulling manifest"
    with pytest.raises(ollama.ResponseError, match="Try again") as refused:
        client.pull("org/model")
    assert refused.value.status_code == 429
    for steps in running:
        steps.close()
    wait_until(lambda: not downloads(), seconds=5, what="the downloads to end")
    hub.seconds = 0.0
    assert client.pull("org/model").status == "success"


def test_a_client_that_goes_away_ends_the_download(client, hub, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    hub.seconds = 20.0
    steps = client.pull("org/model", stream=True)
    assert next(steps).status == "pulling manifest"
    wait_until(downloads, seconds=10, what="the download to begin")
    steps.close()
    wait_until(lambda: not downloads(), seconds=5, what="the download to end")
    hub.seconds = 0.0
