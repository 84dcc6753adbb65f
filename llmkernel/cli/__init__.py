"""The program `llmkernel`, which is also `jupyter llmkernel`.

Each command is in a file of its own and is imported when it is called, so that
`llmkernel --help` answers at once and nothing here ever imports torch.
"""

from __future__ import annotations

import contextlib
import difflib
import importlib
import io
import os
import sys
from typing import NoReturn

import click

from llmkernel._version import __version__
from llmkernel.cli import console, failure

COMMANDS = {
    "start": "worker",
    "list": "worker",
    "status": "worker",
    "generate": "generate",
    "chat": "chat",
    "stop": "worker",
    "logs": "logs",
    "serve": "serve",
    "pull": "pull",
    "doctor": "doctor",
    "demo": "demo",
    "bench": "bench",
}
"""Command → module of this package; the function is named `<command>_command`."""


class Program(click.Group):
    """The group of all commands, in the order of a first encounter."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Names for --help."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import the one command that was asked for."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"llmkernel.cli.{COMMANDS[cmd_name]}")
        command: click.Command = getattr(module, f"{cmd_name}_command")
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does it; of an unknown command it says which one is near."""
        near = difflib.get_close_matches(args[0], COMMANDS, n=1)
        if near and near[0] != args[0]:
            ctx.fail(f"No such command {args[0]!r}. Did you mean {near[0]}?")
        return super().resolve_command(ctx, args)


@click.group(cls=Program, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="llmkernel")
def program() -> None:
    """A resident language model for notebooks, scripts and terminals.

    A worker keeps one model in memory; everything on this machine shares it in one batch.
    Leave the model out and it is the small one that comes with the package:

    \b
        llmkernel start
        llmkernel generate "How do I stop a running cell?"
        llmkernel stop

    `jupyter llmkernel` is the same program.
    """


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run the program and exit with its code."""
    sys.exit(run(arguments))


def run(arguments: list[str] | None = None) -> int:
    """Run the program; its exit code (see failure.EXIT_CODES)."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # an ASCII locale must not end a stream
    try:
        code = program.main(arguments, prog_name=_name(), standalone_mode=False)
    except click.ClickException as error:
        with contextlib.suppress(OSError):
            error.show()
        _mute()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return failure.INTERRUPTED
    except console.PipeClosed:
        _mute()
        return failure.PIPE_CLOSED
    return code if isinstance(code, int) else 0


def _name() -> str:
    called = os.path.basename(sys.argv[0]) if sys.argv else ""
    return "jupyter llmkernel" if called.startswith("jupyter-") else "llmkernel"


def _mute() -> None:
    # The interpreter flushes standard output once more on its way out, and would complain
    # where that cannot be done.
    try:
        sys.stdout.flush()
    except OSError:
        with contextlib.suppress(OSError, io.UnsupportedOperation):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
