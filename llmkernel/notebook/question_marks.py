"""A prompt on one line may end in a question mark.

To IPython a line that ends in `?` asks for help on its last word, so `%generate What is a
worker?` would show that there is no object `worker`. The transformers here go before that one and
make of a line that has a prompt what IPython makes of any other line with a magic. `%generate?`
has no prompt and still asks for help. Where IPython takes magics without their `%` (automagic)
the same holds of `generate What is a worker?`.
"""

from __future__ import annotations

import re
from typing import Any

import click
from IPython.core.inputtransformer2 import (
    EscapedCommand,
    MagicAssign,
    assemble_continued_line,
    find_end_of_continued_line,
)
from IPython.core.prefilter import is_shadowed

from llmkernel.errors import InvalidRequest
from llmkernel.notebook.arguments import GENERATE
from llmkernel.notebook.comparing import COMPARE
from llmkernel.notebook.words import split

_LINE = re.compile(
    r"(?:%time\s+)?%(?:(?P<generate>generate)|llm\s+compare)(?:\s+(?P<line>.*))?", re.DOTALL
)
_BEFORE_HELP = 4
"""IPython's own help has 5, other magics have 10; the lowest is asked first."""


def install(shell: Any) -> None:
    """Let prompts of this shell end in question marks."""
    uninstall(shell)
    manager = shell.input_transformer_manager
    manager.token_transformers[:0] = _TRANSFORMERS
    manager.line_transforms.append(_Automagic(shell))


def uninstall(shell: Any) -> None:
    """Take back what `install` did."""
    manager = shell.input_transformer_manager
    known = manager.token_transformers
    known[:] = [each for each in known if each not in _TRANSFORMERS]
    lines = manager.line_transforms
    lines[:] = [each for each in lines if not isinstance(each, _Automagic)]


def has_prompt(line: str) -> bool:
    """Whether `line` is a line magic of ours with a prompt, so that a `?` at its end is text."""
    match = _LINE.fullmatch(line)
    if not match or not match["line"]:
        return False
    command: click.Command = GENERATE if match["generate"] else COMPARE
    try:
        rest = split(match["line"], command).rest
    except InvalidRequest:  # the magic says what is wrong with it better than a page of help
        return True
    return bool(rest.strip("? "))


def _transform(transformer: Any, inherited: Any, lines: list[str]) -> list[str]:
    """What IPython makes of the line. Raises SyntaxError, and it asks another, for one not ours."""
    start = transformer.start_line, transformer.start_col
    end = find_end_of_continued_line(lines, transformer.start_line)
    if not has_prompt(assemble_continued_line(lines, start, end)):
        raise SyntaxError
    changed: list[str] = inherited.transform(lines)
    return changed


class _Line(EscapedCommand):
    """`%generate What is a worker?`."""

    priority = _BEFORE_HELP

    def transform(self, lines: list[str]) -> list[str]:
        return _transform(self, super(), lines)


class _Assigned(MagicAssign):
    """`answer = %generate What is a worker?`."""

    priority = _BEFORE_HELP

    def __init__(self, start: tuple[int, int]) -> None:
        # what begins first is asked first, and to IPython help begins at the variable
        super().__init__((start[0], 0))  # type: ignore[no-untyped-call]
        self._magic_col = start[1]

    def transform(self, lines: list[str]) -> list[str]:
        self.start_col = self._magic_col
        return _transform(self, super(), lines)


class _Automagic:
    """`generate What is a worker?`: the `%` that IPython would think of only after help.

    As automagic is, this is for cells of one line, and a variable of that name goes before it.
    """

    def __init__(self, shell: Any) -> None:
        self._shell = shell

    def __call__(self, lines: list[str]) -> list[str]:
        return [f"%{lines[0].lstrip()}"] if self._is_ours(lines) else lines

    def _is_ours(self, lines: list[str]) -> bool:
        line = "".join(lines).strip()
        if not self._shell.automagic or len(lines) != 1 or not line.endswith("?"):
            return False
        name, _, rest = line.partition(" ")
        shadowed = is_shadowed(name, self._shell)  # type: ignore[no-untyped-call]
        if shadowed or rest.lstrip().startswith("="):
            return False
        return has_prompt(f"%{line}")


_TRANSFORMERS = (_Line, _Assigned)
