"""Models off the hub: fetched, found again, and refused with the cause, against a hub on loopback."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hub_server
import pytest
import small_checkpoints

from llmkernel.errors import ModelNotFound
from llmkernel.protocol import Progress
from llmkernel.worker import hub

pytestmark = pytest.mark.timeout(60)

FETCH = """
import json, sys
from llmkernel.errors import LLMKernelError
from llmkernel.worker.hub import resolve
model, revision = sys.argv[1], sys.argv[2] or None
steps = []
try:
    source = resolve(model, revision, lambda p: steps.append([p.stage, p.done, p.total, p.unit]))
    result = {"folder": str(source.folder), "revision": source.revision}
except LLMKernelError as error:
    result = {"code": error.code, "message": error.message, "data": error.data}
print(json.dumps(result | {"steps": steps}))
"""


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A repository's files, some of which no worker has a use for."""
    folder = tmp_path / "repository"
    small_checkpoints.save(folder)
    small_checkpoints.shard(folder)
    for useless in ("README.md", "model.onnx", "consolidated.safetensors", "modeling_x.py",
                    "original/params.json", "onnx/config.json"):  # fmt: skip
        (folder / useless).parent.mkdir(exist_ok=True)
        (folder / useless).write_text("useless")
    return folder


@pytest.fixture
def server(files: Path) -> Iterator[hub_server.Hub]:
    with hub_server.serving(files) as running:
        yield running


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "hf"


def fetch(
    url: str, home: Path, model: str = "org/model", revision: str = "", **variables: str
) -> dict[str, Any]:
    """What `resolve` does in a fresh process, which reads its environment as a worker does."""
    kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
    settings = {"HF_ENDPOINT": url, "HF_HOME": str(home), "NO_PROXY": "*", "HOME": str(home)}
    settings["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    done = subprocess.run(
        [sys.executable, "-c", FETCH, model, revision],
        env=kept | settings | variables,
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return json.loads(done.stdout)  # type: ignore[no-any-return]


def test_a_model_is_fetched_once_and_then_found(
    server: hub_server.Hub, home: Path, files: Path
) -> None:
    first = fetch(server.url, home)
    assert first["revision"] == hub_server.COMMIT
    wanted = {"config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja",
              "generation_config.json", "model.safetensors.index.json"}  # fmt: skip
    shards = {path.name for path in files.glob("model-*.safetensors")}
    assert set(os.listdir(first["folder"])) == wanted | shards
    assert first["steps"][0] == ["resolve", 0, 0, ""]
    stage, done, total, unit = first["steps"][-1]
    assert (stage, unit) == ("download", "bytes")
    assert done == total == sum((files / name).stat().st_size for name in wanted | shards)
    server.served.clear()
    again = fetch(server.url, home)
    assert again["folder"] == first["folder"]
    assert server.served == []
    assert again["steps"][1][1:3] == [total, total]


def test_bytes_are_reported_while_they_arrive(
    server: hub_server.Hub, home: Path, files: Path
) -> None:
    for megabytes, shard in zip((12, 24, 36), sorted(files.glob("model-*")), strict=True):
        shard.write_bytes(bytes(megabytes * 10**6))  # the hub's library writes ten at a time
    server.seconds = 2.0
    done = [step[1] for step in fetch(server.url, home)["steps"] if step[0] == "download"]
    assert done == sorted(done)
    assert done[-1] > 72 * 10**6
    assert len(set(done)) > 4


def test_what_was_fetched_is_found_without_the_hub(server: hub_server.Hub, home: Path) -> None:
    first = fetch(server.url, home)
    for variables in ({"HF_HUB_OFFLINE": "1"}, {"HF_ENDPOINT": nowhere()}):
        assert fetch(server.url, home, **variables)["folder"] == first["folder"]
    server.broken = 503
    assert fetch(server.url, home)["folder"] == first["folder"]


def test_half_a_model_in_the_cache_is_no_model(server: hub_server.Hub, home: Path) -> None:
    folder = Path(fetch(server.url, home)["folder"])
    next(folder.glob("model-*.safetensors")).unlink()
    refused = fetch(server.url, home, HF_HUB_OFFLINE="1")
    assert refused["code"] == "hub_unreachable"
    assert "Only a part" in refused["message"]


@pytest.mark.parametrize("variables", [{}, {"HF_HUB_OFFLINE": "1"}])
def test_without_hub_and_cache_the_cure_is_named(home: Path, variables: dict[str, str]) -> None:
    refused = fetch(nowhere(), home, **variables)
    assert refused["code"] == "hub_unreachable"
    assert "local folder" in refused["message"]


def test_a_hub_in_trouble_is_unreachable(server: hub_server.Hub, home: Path) -> None:
    server.broken = 500
    assert fetch(server.url, home)["code"] == "hub_unreachable"


def test_a_model_that_does_not_exist_is_not_found(server: hub_server.Hub, home: Path) -> None:
    refused = fetch(server.url, home, model="org/other")
    assert refused["code"] == "model_not_found"
    assert "org/other" in refused["message"]


def test_a_revision_that_does_not_exist_is_named(server: hub_server.Hub, home: Path) -> None:
    refused = fetch(server.url, home, revision="v9")
    assert refused["code"] == "model_not_found"
    assert "v9" in refused["message"]


def test_a_gated_model_says_where_to_ask(server: hub_server.Hub, home: Path) -> None:
    server.gated = True
    refused = fetch(server.url, home)
    assert refused["code"] == "model_gated"
    assert "https://huggingface.co/org/model" in refused["message"]
    assert "HF_TOKEN" in refused["message"]


def test_a_private_model_needs_the_token(server: hub_server.Hub, home: Path) -> None:
    server.token = "hf_test"
    refused = fetch(server.url, home)
    assert refused["code"] == "model_not_found"
    assert "HF_TOKEN" in refused["message"]
    assert "hf_test" not in json.dumps(refused)
    assert "folder" in fetch(server.url, home, HF_TOKEN="hf_test")


def test_pickled_weights_are_refused_before_they_are_fetched(
    server: hub_server.Hub, home: Path, files: Path
) -> None:
    for path in (*files.glob("*.safetensors"), files / "model.safetensors.index.json"):
        path.unlink()
    (files / "pytorch_model.bin").write_bytes(b"booby trap")
    refused = fetch(server.url, home)
    assert refused["code"] == "unsafe_checkpoint"
    assert "llmkernel.worker.convert org/model" in refused["message"]
    assert server.served == []


def test_a_full_disk_is_told_with_both_numbers(
    server: hub_server.Hub, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    huggingface_hub = pytest.importorskip("huggingface_hub")
    home.mkdir()
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", server.url)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(home))
    monkeypatch.setattr(hub, "_disk_free", lambda _: 1000)
    with pytest.raises(hub.StartFailed, match="disk is too full") as caught:
        hub._Download("org/model", None, lambda _: None)._needed(["config.json", "tokenizer.json"])
    assert caught.value.data["needed"] > caught.value.data["free"] == 1000


@pytest.mark.parametrize(
    ("model", "text"),
    [
        ("./nowhere", "no folder"),
        ("/nowhere/at/all", "no folder"),
        ("~/nowhere", "no folder"),
        ("a/b/c", "no folder a/b/c, and on the hub a model is named ORG/NAME"),
        ("https://huggingface.co/Qwen/Qwen3-4B", "and on the hub a model is named ORG/NAME"),
        ("hf.co/Qwen/Qwen3-4B", "and on the hub a model is named ORG/NAME"),
        ("spaces are no name", "neither a folder"),
        ("org/mod--el", "neither a folder"),
        ("..", "revision"),
    ],
)
def test_what_is_neither_folder_nor_id_says_so(model: str, text: str) -> None:
    with pytest.raises(ModelNotFound, match=text):
        hub.resolve(model, "v1", lambda _: None)


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_text("")
    with pytest.raises(ModelNotFound, match="is a file"):
        hub.resolve(str(tmp_path / "m.gguf"), None, lambda _: None)


def test_a_folder_is_taken_as_it_is(tmp_path: Path) -> None:
    steps: list[Progress] = []
    assert hub.resolve(str(tmp_path), None, steps.append) == (tmp_path, None)
    assert [step.stage for step in steps] == ["resolve"]


def nowhere() -> str:
    """An address where nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"
