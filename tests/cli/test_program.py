"""The program as a whole: help, names, exit codes, pipes, locales, its page in the docs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

from llmkernel._version import __version__
from llmkernel.cli import COMMANDS, program
from tests.cli.terminal import PROGRAM, run

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "transformers", "numpy", "IPython", "huggingface_hub", "zmq")


def test_help_names_every_command_and_says_what_it_does():
    done = run("--help")
    assert done.returncode == 0
    listed = {
        line.split()[0]: line.split()[1:] for line in done.stdout.splitlines() if line.strip()
    }
    for name in COMMANDS:
        assert listed[name], f"{name} has no words"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name):
    done = run(name, "--help")
    assert done.returncode == 0
    assert f"llmkernel {name}" in done.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_an_option_of_one_value_cannot_be_given_twice(name):
    command = program.get_command(click.Context(program), name)
    for param in command.params:
        if isinstance(param, click.Option) and not (param.multiple or param.is_flag):
            word = param.opts[-1]
            with pytest.raises(click.UsageError, match=f"{word}' takes one value, and was given 2"):
                command.make_context(name, [word, "1", word, "1"])


def test_a_line_that_is_being_completed_may_hold_an_option_twice():
    command = program.get_command(click.Context(program), "generate")
    command.make_context("generate", ["-t", "0", "-t", "1"], resilient_parsing=True)


def test_help_loads_nothing_heavy():
    code = (
        "import sys; from llmkernel.cli import run; run(['--help']); "
        f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stderr.strip() == "[]"


def test_the_version_is_that_of_the_package():
    assert run("--version").stdout == f"llmkernel, version {__version__}\n"


@pytest.mark.parametrize("arguments", [["frobnicate"], ["list", "--frobnicate"], ["list", "extra"]])
def test_wrong_usage_has_code_2_and_says_where_help_is(arguments):
    done = run(*arguments)
    assert done.returncode == 2
    assert "--help" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_mistyped_command_is_answered_with_the_one_that_is_near():
    assert "No such command 'star'. Did you mean start?" in run("star").stderr


def test_it_is_a_subcommand_of_jupyter():
    bin_folder = Path(sys.executable).parent
    done = subprocess.run(
        [bin_folder / "jupyter", "llmkernel", "--help"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}"},
    )
    assert done.returncode == 0, done.stderr
    assert "Usage: jupyter llmkernel [OPTIONS]" in done.stdout


def test_a_reader_that_leaves_ends_the_program_without_a_word(start_worker):
    start_worker(model="scripted:context_length=200000,blocks=16000", name="scripted")
    # more than a pipe holds, so that it cannot be done before the reader leaves
    command = " ".join(PROGRAM) + " generate x -n 150000 --ignore-eos"
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command} | head -c 20; exit ${{PIPESTATUS[0]}}"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (141, "")
    assert len(done.stdout) == 20


def test_a_full_disk_is_one_line_and_no_traceback(runtime_dir):
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*PROGRAM, "list", "--json"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr == "Error: The output cannot be written: No space left on device.\n"


def test_names_of_workers_complete_with_tab(scripted_worker):
    asked = {"_LLMKERNEL_COMPLETE": "bash_complete", "COMP_CWORD": "2"}
    done = subprocess.run(
        [Path(sys.executable).with_name("llmkernel")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, **asked, "COMP_WORDS": "llmkernel status scr"},
    )
    assert done.stdout.split() == ["plain,scripted"]


def test_a_locale_without_unicode_gets_escapes_and_no_traceback(runtime_dir):
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0", "LC_ALL": "C"}
    done = subprocess.run(
        [*PROGRAM, "status", "überall"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=environment,
    )
    assert done.returncode == 2
    assert "cannot name a worker" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_page_in_the_docs_is_what_the_commands_say():
    done = subprocess.run(
        [sys.executable, ROOT / "tools" / "cli_reference.py", "--check"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
