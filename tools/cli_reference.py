"""Write docs/cli.md from the commands themselves; with --check only say whether it is up to date.

    python tools/cli_reference.py
    python tools/cli_reference.py --check

The tables are made from the options' own data and not from `--help`, whose layout changes
between versions of click.
"""

from __future__ import annotations

import inspect
import sys
from pathlib import Path

import click

from llmkernel.cli import COMMANDS, program
from llmkernel.cli.failure import EXIT_CODES, INTERRUPTED, PIPE_CLOSED

TARGET = Path(__file__).parent.parent / "docs" / "cli.md"
INTRODUCTION = """\
<!-- Written by tools/cli_reference.py; `make lint` checks that it is up to date. -->

# Command line

`llmkernel COMMAND …`, which is also `jupyter llmkernel COMMAND …` and
`python -m llmkernel COMMAND …`. Answers and tables go to standard output, everything else
(progress, statistics, errors, hints) to standard error.

Wherever a worker is meant and no name is given, it is the only one that runs.

Commands, options and names of workers complete with Tab after
`eval "$(_LLMKERNEL_COMPLETE=bash_source llmkernel)"` (or `zsh_source`, `fish_source`).
"""


def reference() -> str:
    """The whole page."""
    context = click.Context(program, info_name="llmkernel")
    parts = [INTRODUCTION, _contents()]
    for name in COMMANDS:
        command = program.get_command(context, name)
        assert command is not None
        parts.append(_section(command, click.Context(command, context, name)))
    return "\n".join([*parts, _exit_codes()])


def _contents() -> str:
    links = "\n".join(f"- [`{name}`](#{name})" for name in COMMANDS)
    return f"{links}\n- [exit codes](#exit-codes)\n"


def _section(command: click.Command, context: click.Context) -> str:
    usage = " ".join(["llmkernel", command.name or "", *command.collect_usage_pieces(context)])
    lines = [f"## {command.name}", "", f"```\n{usage}\n```", "", _prose(command.help or "")]
    rows = [_row(option) for option in command.params if isinstance(option, click.Option)]
    if rows:
        lines += ["", "| option | meaning |", "|---|---|", *rows]
    return "\n".join(lines) + "\n"


def _prose(text: str) -> str:
    # click marks a paragraph that keeps its line breaks with a backspace character
    paragraphs = inspect.cleandoc(text).split("\n\n")
    done = []
    for paragraph in paragraphs:
        if paragraph.startswith("\b\n"):
            done.append("```\n" + inspect.cleandoc(paragraph[2:]) + "\n```")
        else:
            done.append(paragraph)
    return "\n\n".join(done)


def _row(option: click.Option) -> str:
    names = ", ".join(f"`{name}`" for name in (*option.opts, *option.secondary_opts))
    value = ""
    if not option.is_flag and not option.count:
        kind = option.type
        choices = kind.choices if isinstance(kind, click.Choice) else ()
        value = " `" + (option.metavar or "\\|".join(map(str, choices)) or "TEXT") + "`"
    meaning = (option.help or "").replace("|", "\\|")
    if option.show_default and option.default not in (None, (), False):
        meaning += f" Default: {option.default}."
    return f"| {names}{value} | {meaning} |"


def _exit_codes() -> str:
    rows = [(0, "success")]
    rows += sorted((code, f"{why} (`{cls.__name__}`)") for cls, code, why in EXIT_CODES)
    rows += [(INTERRUPTED, "interrupted with Ctrl-C; what had arrived was printed")]
    rows += [(PIPE_CLOSED, "the reader of the output has gone, as `head` does")]
    table = "\n".join(f"| {code} | {why} |" for code, why in rows)
    return (
        "## exit codes\n\n| code | meaning |\n|---|---|\n"
        f"{table}\n\n"
        "With `--json` a failure also writes "
        '`{"error": {"code", "message", "hint", "data"}}` to standard output.\n'
    )


def main(arguments: list[str]) -> int:
    """Write or check the page."""
    text = reference()
    if arguments == ["--check"]:
        if TARGET.exists() and TARGET.read_text() == text:
            return 0
        sys.stderr.write("docs/cli.md is not what the commands say. Run: make docs\n")
        return 1
    TARGET.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
