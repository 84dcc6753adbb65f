"""An error of ours in a notebook: the message, the hint, the user's own line."""

from __future__ import annotations

import re

import pytest

from llmkernel import errors
from llmkernel.notebook import failures


@pytest.fixture
def installed():
    failures.install()
    yield
    failures.uninstall()


def raised(error: BaseException) -> BaseException:
    try:
        raise error
    except type(error) as caught:
        return caught


def test_hints_speak_of_magics_and_not_of_the_program():
    for code in errors.TABLE:
        hint = failures.hint(errors.from_code(code, ""))
        assert not re.search("`llmkernel (?!doctor)", hint), hint


def test_it_is_a_message_and_what_to_do(installed):
    error = raised(errors.WorkerNotFound("No worker runs."))
    first, second, *_ = error._render_traceback_()
    assert first == "WorkerNotFound: No worker runs."
    assert second == errors.TABLE["worker_not_found"].hint


def test_the_users_own_line_is_shown(installed):
    lines = raised(errors.InvalidRequest("bad"))._render_traceback_()
    assert any("raise error" in line and "test_failures.py" in line for line in lines)


def test_frames_of_the_package_are_not_shown(installed):
    from llmkernel.params import SamplingParams

    with pytest.raises(errors.InvalidRequest) as caught:
        SamplingParams.build(temperature=-1)
    lines = "\n".join(caught.value._render_traceback_())
    assert "params.py" not in lines
    assert "SamplingParams.build(temperature=-1)" in lines


def test_an_interrupt_is_one_word():
    error = KeyboardInterrupt()
    failures.shorten(error)
    assert error._render_traceback_() == ["KeyboardInterrupt"]


def test_uninstalling_leaves_nothing():
    failures.install()
    failures.uninstall()
    assert not hasattr(errors.LLMKernelError, "_render_traceback_")
