"""Which worker a command is about."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click
from click.shell_completion import CompletionItem

from llmkernel.errors import LLMKernelError


def _running(_context: click.Context, _option: click.Parameter, start: str) -> list[CompletionItem]:
    from llmkernel import connection

    try:
        found = connection.list_workers()
    except LLMKernelError:
        return []  # completion has no place for an error
    return [
        CompletionItem(worker.name, help=worker.model)
        for worker in found
        if worker.name.startswith(start)
    ]


worker_option: Callable[[Any], Any] = click.option(
    "-m",
    "--worker",
    "worker",
    metavar="NAME",
    shell_complete=_running,
    help="The worker to use; may be left out where only one runs.",
)

worker_argument: Callable[[Any], Any] = click.argument(
    "name", required=False, shell_complete=_running
)
