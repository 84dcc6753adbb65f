"""The line of a magic, split as a shell would: quotes, and `{{ … }}` as a part of a word.

IPython's own splitting keeps quotes in the values and expands single braces; this does
neither. A line such as `%generate -n 20 What's new?` is an option and a prompt that is not
split at all, so the words are found one at a time.
"""

from __future__ import annotations

import re
from typing import NamedTuple

import click

from llmkernel.errors import InvalidRequest
from llmkernel.notebook.scanning import template_end, word_end

_LOOP = re.compile(r"\s*(?P<name>\S+)\s+in\s+(?=\S)")
_INTEGER = re.compile(r"\d+")


class Line(NamedTuple):
    """The options at the beginning of a line, and what comes after them, untouched."""

    options: list[str]
    rest: str


def split(line: str, command: click.Command) -> Line:
    """Take the options of `command` off a line, up to the first word that is none or `--`.

    Raises InvalidRequest for a quote that is never closed.
    """
    options: list[str] = []
    position = _skip_blanks(line, 0)
    while position < len(line) and line[position] == "-":
        end = word_end(line, position)
        word = line[position:end]
        if word == "--":
            return Line(options, line[end:].lstrip())
        position = _take(line, end, word, command, options)
    return Line(options, line[position:])


def words(line: str) -> list[str]:
    """All words of a line, without their quotes."""
    found, position = [], _skip_blanks(line, 0)
    while position < len(line):
        end = word_end(line, position)
        found.append(unquote(line[position:end]))
        position = _skip_blanks(line, end)
    return found


def unquote(word: str) -> str:
    """A word without its quotes and escapes; templates in it stay as they are.

    Raises InvalidRequest for a quote that is never closed.
    """
    pieces, quote, position = [], "", 0
    while position < len(word):
        character = word[position]
        closing = template_end(word, position + 2) if word.startswith("{{", position) else None
        if closing is not None:
            pieces.append(word[position : closing + 2])
            position = closing + 1
        elif character == quote or (not quote and character in "\"'"):
            quote = "" if quote else character
        elif _escapes(word, position, quote):
            position += 1
            pieces.append(word[position])
        else:
            pieces.append(character)
        position += 1
    if quote:
        raise InvalidRequest(f"The quote in {word} is never closed.")
    return "".join(pieces)


def _escapes(word: str, position: int, quote: str) -> bool:
    """Whether a backslash stands for the character after it, as in a POSIX shell."""
    after = word[position + 1 : position + 2]
    return word[position] == "\\" and (
        after in ('"', "\\") if quote == '"' else bool(after) and not quote
    )


def _take(line: str, position: int, word: str, command: click.Command, options: list[str]) -> int:
    """Append an option and its values; returns where the next word begins."""
    options.append(unquote(word))
    option = _option(command, word)
    if option is not None and "=" not in word:
        if option.name == "loop":
            position = _take_loop(line, position, options)
        else:
            position = _take_values(line, position, option, options)
    return _skip_blanks(line, position)


def _take_values(line: str, position: int, option: click.Option, options: list[str]) -> int:
    wanted = 0 if option.is_flag else option.nargs
    for _ in range(wanted):
        start = _skip_blanks(line, position)
        end = word_end(line, start)
        value = unquote(line[start:end])
        if start == end or (_may_stand_alone(option) and not _INTEGER.fullmatch(value)):
            break
        options.append(value)
        position = end
    return position


def _take_loop(line: str, position: int, options: list[str]) -> int:
    """`NAME in EXPR`, where EXPR is Python and goes on to the first blank outside brackets.

    All of it may stand in quotes, as it would have to in a shell; then it goes on to their end.
    """
    start = _skip_blanks(line, position)
    quoted = line.startswith(("'", '"'), start)
    text, begin = (unquote(line[start : word_end(line, start)]), 0) if quoted else (line, start)
    match = _LOOP.match(text, begin)
    if not match:
        raise InvalidRequest("Write --for NAME in EXPR, for example: --for city in cities")
    end = len(text) if quoted else word_end(line, match.end(), brackets=True)
    options += [match["name"], text[match.end() : end]]
    return word_end(line, start) if quoted else end


def _option(command: click.Command, word: str) -> click.Option | None:
    """The option that a word names, where it takes its values from the words after it."""
    flag = word.partition("=")[0]
    options = [param for param in command.params if isinstance(param, click.Option)]
    return next((option for option in options if flag in option.opts), None)


def _may_stand_alone(option: click.Option) -> bool:
    return not option.is_flag and option.metavar is not None and option.metavar.startswith("[")


def _skip_blanks(line: str, position: int) -> int:
    while position < len(line) and line[position].isspace():
        position += 1
    return position
