"""Write docs/magics.md from the magics themselves; with --check only say whether it is up to date.

python tools/magics_reference.py
python tools/magics_reference.py --check
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Collection
from pathlib import Path

import click

from llmkernel.notebook import prompt
from llmkernel.notebook.arguments import GENERATE
from llmkernel.notebook.chatting import CHAT
from llmkernel.notebook.commands import LLM

_NAMED = ("worker", "system", "raw", "format_", "logprobs", "output", "literal", "quiet")
"""Options that are named where a command shares them; those of sampling are too many."""
TARGET = Path(__file__).parent.parent / "docs" / "magics.md"
INTRODUCTION = """\
<!-- Written by tools/magics_reference.py; `make lint` checks that it is up to date. -->

# Magics

```
%load_ext llmkernel
%llm start                      # the embedded model; or a hub id, or a folder
```
```
%%generate -t 0 -o answer
What is {{ a }} + {{ b }}?
```

`%load_ext llmkernel` in `ipython_config.py` (`c.InteractiveShellApp.extensions`) loads the magics
in every notebook; `c.LLMKernelMagics.worker` and `c.LLMKernelMagics.defaults = "-t 0 -n 200"` there,
or `%config LLMKernelMagics`, choose a worker and defaults. Tab completes options, workers,
conversations, variables and what is inside `{{ }}`.
"""
AFTER_GENERATE = """\
Values are split as in a shell: `--system "be brief"`. `{{ expression }}` works in them too:
`-n {{ limit }}`. In `--stop`, `"\\n"` is a newline. On a `%generate` line the prompt begins with the
first word that is no option, or after `--`, and may end in `?`; `%generate?` alone asks for help. A model without a chat template gets the text as it is,
as with `--raw`.

### What is shown

One output for each generation, as Markdown and as plain text, updated at most 25 times a second
and less often as it grows. Several answers (`--samples`) stand side by side, as many as there is
room for. With `--logprobs` the tokens are coloured, the unlikely ones strongest, as the model
wrote them: marks of Markdown are tokens too, and ∎ stands for its sign for the end; pointing at one,
or going to it with Tab and the arrow keys, shows what else was likely, and so does a table that
unfolds. In a notebook of somebody else, from which JupyterLab takes styles out, colours, titles and
the table stay. Without HTML there are the text and the table. Under it stands one quiet line: tokens, speed, time to the first token,
and how it ended where it did not end by itself. The output's metadata have all of it under
`llmkernel`.

What a model writes is never trusted: raw HTML is shown as text, links lead only to `http`, `https`
and `mailto`, pictures are links, control characters are taken out.

| `LLMKERNEL_STREAM` | output |
|---|---|
| `1` | updated while text arrives |
| `0` | published once, at the end, without anything that depends on speed |
| `auto`, or not set | `0` where nbclient (nbconvert, papermill) or pytest (nbval) runs the notebook, and under `%%capture`; else `1` |

Where outputs are published once, a generation in the background and the bar of `map` show nothing: an
output that came after its cell would be in the file or not by chance. The handle has the answer.

### What the variable gets

| options | `-o VAR` |
|---|---|
| | a `Generation`, which is a `str` of its text: `VAR.text` without the rest, `.finish_reason`, `.usage`, `.timings`, `.logprobs` |
| `--samples N` | the same; `.samples` has all of them |
| `--format json` | the value; an answer that is no JSON is an error, shown as it came |
| `--for NAME in EXPR` | a list, or for a Series a Series with its index; an exception where one failed |
| `--for NAME in FRAME` | a data frame with the index of FRAME and the columns `answer` and `error`: `FRAME.join(VAR)`; with `--format json` also `generation`, what each value was read out of |
| `--background` | a handle: `.result(timeout)`, `await VAR`, `.cancel()`, `.done`, `.generation` |

`--for` takes a list or anything to go over; the items of a data frame are its rows, whose fields are
`{{ NAME.column }}` or `{{ NAME["a column"] }}`. EXPR ends at the first blank outside brackets and
quotes. A bar counts the answers; a table with an answer or an error for each item takes its place.

### Stop, and errors

Interrupt cancels the request in the worker; what has come stays on the screen and in VAR,
KeyboardInterrupt is raised, and no queued cell runs. The worker and everybody else go on. A
generation in the background is stopped with its handle. What a worker had said that
broke off is in VAR too.

Errors are exceptions with a message, what to do next, and the lines of your own code.
`import traceback; traceback.print_last()` shows the rest.
"""

AFTER_CHAT = """\
```
%%chat --system "Answer in one sentence."
What is a prefix cache?
```
```
%%chat
And when is it of no use?
```

A conversation is what its cells show. Running a cell again goes back to where it was: its own turn
is replaced and not added a second time, and the turns after it, which answered to what is gone, are
left out until their cells are run again. An interrupted turn stays as far as it came. JupyterLab and
Notebook 7 say which cell runs; where a front end does not (a terminal, nbclient), every
turn goes on at the end.

`--system` holds from its turn on, `--system ""` takes it away. `%llm chats NAME -o VAR` gives the
messages as a list, which `llm.chat` takes and `json.dump` writes.
"""


def reference() -> str:
    """The whole page."""
    parts = [INTRODUCTION, "## %%generate\n", _usage("%%generate", GENERATE)]
    parts += [_prose(GENERATE.help), _options(GENERATE), AFTER_GENERATE]
    parts += ["## %%chat\n", _usage("%%chat", CHAT), _prose(CHAT.help)]
    parts += [_options(CHAT, but=_shown_above("chat")), AFTER_CHAT]
    parts += ["## {{ expression }}\n", _prose(prompt.__doc__), "## %llm\n"]
    for name, command in LLM.commands.items():
        parts += [f"### %llm {name}\n", _usage(f"%llm {name}", command), _prose(command.help)]
        parts += [_options(command, but=_shown_above(name))]
    return "\n".join(part for part in parts if part)


def _usage(title: str, command: click.Command) -> str:
    pieces = command.collect_usage_pieces(click.Context(command))
    if not any(isinstance(param, click.Option) for param in command.params):
        pieces.remove("[OPTIONS]")
    return f"```\n{' '.join([title, *pieces])}\n```\n"


def _prose(text: str | None) -> str:
    return inspect.cleandoc(text or "") + "\n"


def _shown_above(name: str) -> set[str]:
    """The options that a command shares with `%%generate`."""
    shared = {param.name or "" for param in GENERATE.params}
    return shared if name in ("config", "chat", "compare") else set()


def _options(command: click.Command, but: Collection[str] = ()) -> str:
    options = [param for param in command.params if isinstance(param, click.Option)]
    rows = [_row(option) for option in options if option.name not in but]
    if but:
        shared = {param.name: param for param in command.params if param.name in but}
        named = [name for name in _NAMED if name in shared]
        flags = ", ".join(f"`{shared[name].opts[0]}`" for name in named)
        rows.append(f"| … | of `%%generate`: {flags} and those of sampling |")
    return "\n".join(["| option | meaning |", "|---|---|", *rows]) + "\n" if rows else ""


def _row(option: click.Option) -> str:
    names = ", ".join(f"`{name}`" for name in (*option.opts, *option.secondary_opts))
    value = ""
    if not option.is_flag:
        choices = option.type.choices if isinstance(option.type, click.Choice) else ()
        value = " `" + (option.metavar or "\\|".join(map(str, choices)) or "TEXT") + "`"
    meaning = " ".join((option.help or "").split()).replace("|", "\\|")
    if option.show_default and option.default is not None:
        meaning += f" Default: {option.default}."
    return f"| {names}{value} | {meaning} |"


def main(arguments: list[str]) -> int:
    """Write or check the page."""
    text = reference()
    if arguments == ["--check"]:
        if TARGET.exists() and TARGET.read_text() == text:
            return 0
        sys.stderr.write("docs/magics.md is not what the magics say. Run: make docs\n")
        return 1
    TARGET.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
