"""`pull` of what is here and of what is not. Nothing is downloaded: the hub is switched off."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import llmkernel
from tests.cli.terminal import Terminal, run

DEMO = Path(llmkernel.__file__).parent / "demo"


@pytest.fixture(autouse=True)
def no_hub(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path))


def test_what_is_here_is_named_by_its_folder():
    done = run("pull", "demo")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{DEMO}\n", "")


def test_json_is_the_progress_and_then_the_folder():
    *progress, last = [
        json.loads(line) for line in run("pull", "demo", "--json").stdout.splitlines()
    ]
    assert [record["type"] for record in progress] == ["progress"] * len(progress)
    assert progress[0]["stage"] == "resolve"
    assert last == {"type": "done", "folder": str(DEMO), "revision": None}


def test_a_model_that_cannot_be_had_says_why_and_what_to_do():
    done = run("pull", "nobody/no-such-model", "--json")
    assert done.returncode == 5
    assert json.loads(done.stdout.splitlines()[-1])["error"]["code"] == "hub_unreachable"
    assert "HF_HUB_OFFLINE" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_folder_that_is_not_there_is_named():
    done = run("pull", "/no/such/folder")
    assert done.returncode == 5
    assert "/no/such/folder" in done.stderr


def test_without_a_model_it_is_the_embedded_one_which_is_there(runtime_dir):
    done = run("pull")
    assert done.returncode == 0
    assert (Path(done.stdout.strip()) / "model.safetensors").exists()


def test_a_terminal_gets_the_folder_alone_in_the_end():
    with Terminal("pull", "demo") as terminal:
        assert terminal.end() == 0
        assert terminal.screen.endswith(f"{DEMO}\r\n")


def test_an_empty_name_is_not_the_folder_that_one_is_in():
    done = run("pull", "")
    assert (done.returncode, done.stdout) == (2, "")
    assert "model is empty" in done.stderr
