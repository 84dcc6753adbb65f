"""How a command ends when it does not succeed: a message, a hint and an exit code."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from llmkernel.cli import console
from llmkernel.errors import (
    TABLE,
    ConnectionProblem,
    InvalidRequest,
    LLMKernelError,
    StartFailed,
    Unavailable,
    WorkerNotFound,
)
from llmkernel.options.once import Once

if TYPE_CHECKING:
    from llmkernel.client.generation import Generation

INTERRUPTED = 130
PIPE_CLOSED = 141

EXIT_CODES: tuple[tuple[type[LLMKernelError], int, str], ...] = (
    (InvalidRequest, 2, "a value, an option or a combination that cannot be served"),
    (WorkerNotFound, 3, "no such worker runs"),
    (ConnectionProblem, 4, "the worker is gone, does not answer or does not know this key"),
    (StartFailed, 5, "a worker could not be started"),
    (Unavailable, 6, "not now: queue full, still loading or stopping; try again later"),
    (LLMKernelError, 1, "anything else that went wrong"),
)
"""First match wins. 0 is success, 130 an interrupt, 141 a reader of the output that has gone."""


class Command(Once):
    """A command whose errors of this project become a message, a hint and an exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the callback; a failure ends the program without a traceback."""
        try:
            return super().invoke(ctx)
        except LLMKernelError as error:
            report(error, as_json=bool(ctx.params.get("as_json")))
            ctx.exit(exit_code(error))


def exit_code(error: LLMKernelError) -> int:
    """The exit code of a command that ends with `error`."""
    return next(code for cls, code, _ in EXIT_CODES if isinstance(error, cls))


def hint(error: LLMKernelError) -> str:
    """What to do next, in the words of a terminal; nothing where the message is all there is."""
    outcome = None if type(error) is InvalidRequest else TABLE.get(error.code)
    return outcome.hint.replace("`%llm ", "`llmkernel ") if outcome else ""


def report(error: LLMKernelError, *, as_json: bool = False) -> None:
    """Say what happened and what to do next on standard error.

    With `as_json` standard output also gets `{"error": {code, message, hint, data}}`, so
    that whoever parses it always finds an object.
    """
    if as_json:
        console.json_line({"error": record(error)})
    console.line(f"Error: {error.message}", err=True)
    if hint(error):
        console.line(console.dim(hint(error)), err=True)


def record(error: LLMKernelError) -> dict[str, Any]:
    """The error as a script reads it; `partial` has the answer so far where there is one."""
    found = {
        "code": error.code,
        "message": error.message,
        "hint": hint(error),
        "data": error.data,
    }
    partial = getattr(error, "partial", None)
    return found if partial is None else found | {"partial": answer_record(partial)}


def answer_record(answer: Generation) -> dict[str, Any]:
    """One answer as a script reads it, without what it shares with others of its request."""
    return {
        "text": answer.text,
        "token_ids": answer.token_ids,
        "finish_reason": answer.finish_reason,
        "stop_reason": answer.stop_reason,
        "logprobs": answer.logprobs,
        "mean_logprob": answer.mean_logprob,
    }
