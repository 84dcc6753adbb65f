"""How commands end when they do not succeed."""

from __future__ import annotations

import json

import click
import pytest
from click.testing import CliRunner

from llmkernel import errors
from llmkernel.cli import failure


def command_that_raises(error: BaseException) -> click.Command:
    @click.command(cls=failure.Command)
    @click.option("--json", "as_json", is_flag=True)
    def command(as_json: bool) -> None:
        raise error

    return command


@pytest.mark.parametrize("code", sorted(errors.TABLE))
def test_every_error_has_an_exit_code_and_a_hint_and_no_traceback(code):
    error = errors.from_code(code, "What happened.")
    result = CliRunner().invoke(command_that_raises(error))
    assert result.exit_code == failure.exit_code(error)
    assert 1 <= result.exit_code <= 6
    assert result.stderr.splitlines()[0] == "Error: What happened."
    assert failure.hint(error) in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""


def test_hints_speak_of_the_program_and_not_of_magics():
    for code in errors.TABLE:
        assert "%llm" not in failure.hint(errors.from_code(code, ""))
    assert "`llmkernel start`" in failure.hint(errors.WorkerNotFound(""))


def test_hints_say_whose_log_and_which_model():
    # "logs" alone is the log of the one that runs, and "start" alone starts the embedded model
    assert "`llmkernel logs NAME`" in failure.hint(errors.StartFailed(""))
    for gone in (errors.WorkerDied(""), errors.EngineDied(""), errors.Draining("")):
        assert "`llmkernel start MODEL`" in failure.hint(gone)


def test_a_script_finds_the_error_as_an_object_on_standard_output():
    error = errors.PromptTooLong("Too long.", needed=30, limit=20)
    result = CliRunner().invoke(command_that_raises(error), ["--json"])
    assert json.loads(result.stdout) == {
        "error": {
            "code": "prompt_too_long",
            "message": "Too long.",
            "hint": failure.hint(error),
            "data": {"needed": 30, "limit": 20},
        }
    }
    assert "Error: Too long." in result.stderr


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.InvalidRequest(""), 2),
        (errors.PromptTooLong(""), 2),
        (errors.WorkerNotFound(""), 3),
        (errors.WorkerDied(""), 4),
        (errors.NotEnoughMemory(""), 5),
        (errors.Overloaded(""), 6),
        (errors.StepFailed(""), 1),
    ],
)
def test_exit_codes_tell_kinds_of_failure_apart(error, code):
    assert failure.exit_code(error) == code


def test_a_message_cannot_send_commands_to_the_terminal():
    result = CliRunner().invoke(command_that_raises(errors.ModelNotFound("no \x1b[2Jmodel")))
    assert result.stderr.startswith("Error: no ␛[2Jmodel")
