"""What the commands are given is refused before anything is measured."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys

import pytest

from benchmarks import command, results
from llmkernel.errors import InvalidRequest


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "", "many"])
def test_counts_are_from_one_on(text):
    assert command.positive("12") == 12
    with pytest.raises(argparse.ArgumentTypeError, match="from 1 on"):
        command.positive(text)


def test_figures_need_a_folder_that_can_be_written_to(tmp_path):
    made = results.folder(str(tmp_path / "new" / "folder"))
    assert made.is_dir()
    assert list(made.iterdir()) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(argparse.ArgumentTypeError, match="cannot be written to"):
        results.folder(str(tmp_path / "file" / "below"))


@pytest.mark.parametrize(
    ("raised", "code", "told"),
    [
        (command.Refused("No. Choose another."), 2, "Error: No. Choose another.\n"),
        (InvalidRequest("'lots' is no size.", field="kv_cache"), 2, "Error: 'lots' is no size.\n"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_what_is_refused_is_one_line(raised, code, told, capsys):
    def main():
        raise raised

    with pytest.raises(SystemExit) as ended:
        command.run(main)
    assert ended.value.code == code
    assert capsys.readouterr().err == told


@pytest.mark.parametrize(("said", "code"), [(None, 0), (0, 0), (1, 1)])
def test_a_command_ends_as_it_says(said, code):
    with pytest.raises(SystemExit) as ended:
        command.run(lambda: said)
    assert ended.value.code == code


def test_a_mistake_of_the_command_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        command.run(lambda: 1 // 0)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["benchmarks.decode", "--kv-cache", "lots"], "'lots' is no size"),
        (["benchmarks.decode", "--folder", "/proc/none"], "/proc/none cannot be written to"),
        (
            ["benchmarks.decode", "--batch", "9000", "--skip-baseline"],
            "do not fit the cache for keys and values",
        ),
        (["benchmarks.startup", "--kv-cache", "1KiB"], "it says why above"),
        (["benchmarks.gateway", "--streams", "a"], "no list of numbers"),
        (["benchmarks.overhead", "--repeats", "0"], "no number from 1 on"),
    ],
)
def test_wrong_options_are_told_without_a_traceback(given, told):
    done = subprocess.run(
        [sys.executable, "-m", *given], capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 2, done.stderr
    assert told in done.stderr
    assert "Traceback" not in done.stderr


def test_records_name_what_was_measured(tmp_path):
    written = results.save("nothing", {}, "", tmp_path)
    assert json.loads(written.read_text())["commit"] == results.commit()


def test_a_git_that_hangs_takes_no_figures_along(tmp_path, monkeypatch):
    def hangs(*_, **__):
        raise subprocess.TimeoutExpired("git", 30)

    monkeypatch.setattr(results.subprocess, "run", hangs)
    assert results.commit() is None
