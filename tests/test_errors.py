"""The exception tree and its table: nothing unmapped, nothing lost on the way over the wire."""

from __future__ import annotations

import copy
import re

import msgspec
import pytest

from llmkernel import errors, protocol
from llmkernel.errors import LLMKernelError


def tree(root: type[LLMKernelError] = LLMKernelError) -> set[type[LLMKernelError]]:
    return {root}.union(
        *(tree(cls) for cls in root.__subclasses__() if cls.__module__ == root.__module__)
    )


def test_every_exception_has_a_row_of_its_own():
    assert {row.exception for row in errors.TABLE.values()} == tree()
    assert len(errors.TABLE) == len(tree())


def test_every_exception_has_a_code_of_its_own():
    assert all("code" in vars(cls) for cls in tree())
    assert all(code == row.exception.code for code, row in errors.TABLE.items())
    assert all(re.fullmatch("[a-z_]+", code) for code in errors.TABLE)


def test_the_drawing_in_the_docstring_is_the_tree():
    """Each name is indented under its (first) base."""
    stack: list[str] = []
    drawn = {}
    for line in (errors.__doc__ or "").splitlines():
        match = re.match(r"    ([│├└─ ]*)([A-Z]\w+)\s?", line)
        if match:
            depth = len(match[1]) // 4
            stack[depth:] = [match[2]]
            drawn[match[2]] = stack[depth - 1] if depth else "Exception"
    assert drawn == {cls.__name__: cls.__bases__[0].__name__ for cls in tree()}


def test_a_hint_says_what_to_do_in_a_sentence():
    for row in errors.TABLE.values():
        assert row.hint.endswith(".")
        assert 400 <= row.http_status < 600


@pytest.mark.parametrize("cls", sorted(tree(), key=lambda cls: cls.__name__))
def test_an_error_survives_the_wire(cls):
    sent = cls("What happened. What to do.", needed=5, limit=4)
    message = protocol.Refused(id=1, **protocol.wire_error(sent))
    got = protocol.decode_worker(protocol.encode(message))
    assert isinstance(got, protocol.Refused)
    error = errors.from_code(got.code, got.message, got.data)
    assert type(error) is cls
    assert str(error) == error.message == "What happened. What to do."
    assert error.data == {"needed": 5, "limit": 4}


def test_data_may_have_any_key():
    error = errors.from_code("internal", "text", {"message": 1, "self": 2, "code": 3})
    assert str(error) == "text"
    assert error.data == {"message": 1, "self": 2, "code": 3}


def test_an_unknown_code_is_the_root_class():
    error = errors.from_code("from_the_future", "text")
    assert type(error) is LLMKernelError


def test_errors_can_be_copied_and_sent_to_other_processes():
    error = errors.PromptTooLong("text", needed=5, limit=4)
    for other in (copy.copy(error), copy.deepcopy(error)):
        assert type(other) is errors.PromptTooLong
        assert (other.message, other.data) == (error.message, error.data)


def test_errors_are_what_python_programmers_expect():
    assert issubclass(errors.InvalidRequest, ValueError)
    assert issubclass(errors.MissingDependency, ImportError)
    assert issubclass(errors.WorkerDied, errors.ConnectionProblem)
    assert issubclass(errors.WorkerDied, errors.RequestEnded)


def test_a_missing_package_is_told_with_its_extra():
    error = errors.missing("torch", "worker")
    assert "pip install 'llmkernel[worker]'" in str(error)
    assert error.data == {"package": "torch", "extra": "worker"}


def test_numbers_in_data_are_plain():
    error = errors.NotEnoughMemory("text", needed=2**40, free=1)
    assert msgspec.json.decode(msgspec.json.encode(error.data)) == {"needed": 2**40, "free": 1}


def test_whatever_a_message_repeats_it_survives_the_wire():
    sent = LLMKernelError("The file \udcff.bin is none.", file="\ud800.bin")
    message = protocol.Refused(id=1, **protocol.wire_error(sent))
    got = protocol.decode_worker(protocol.encode(message))
    assert isinstance(got, protocol.Refused)
    assert got.message == str(sent) == "The file \\udcff.bin is none."
    assert got.data == {"file": "\\ud800.bin"}


def test_whatever_a_message_repeats_no_terminal_obeys_it():
    """Exceptions are printed by IPython and by Python itself, as they are."""
    error = LLMKernelError("Two\n\tlines: \x1b[2J\x1b]0;title\x07\r\x9b1m\u202e é 日本 👩\u200d🔬.")
    assert str(error) == "Two\n\tlines: ␛[2J␛]0;title␇�1m� é 日本 👩\u200d🔬."


def test_of_an_endless_message_both_ends_are_kept():
    error = LLMKernelError("Begin " + "x" * 20_000_000 + " end.")
    assert error.message.startswith("Begin x")
    assert error.message.endswith("x end.")
    assert len(error.message) < errors.MAX_MESSAGE_CHARS + 10
