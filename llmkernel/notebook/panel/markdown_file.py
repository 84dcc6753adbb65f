"""A conversation as Markdown: a page for people, from which every turn comes back as it was.

A file of ours says so in a comment, which no page shows. In it a line that would be the heading of
a turn has one more `#`, in code too, and a fence that a turn left open is closed, so that it ends
with its turn. What somebody else wrote is read more leniently: headings in code are code there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from llmkernel.errors import InvalidRequest

MARKER = "<!-- llmkernel-conversation -->"
_HEADINGS = {"system": "System", "user": "You", "assistant": "Model"}
_ROLE_OF = {title.lower(): role for role, title in _HEADINGS.items()}
_ROLE_OF |= {"user": "user", "assistant": "assistant"}
_TITLES = "|".join(_ROLE_OF)
_FLAGS = re.ASCII | re.IGNORECASE | re.MULTILINE
_EDITED = " (edited)"
_REST = rf"(?:{_TITLES})(?:{re.escape(_EDITED)})?[ \t\r]*$"
_MARK = re.compile(rf"^## ({_TITLES})({re.escape(_EDITED)})?[ \t\r]*$", _FLAGS)
_DEEP = re.compile(rf"^##+ {_REST}", _FLAGS)
_DEEPER = re.compile(rf"^###+ {_REST}", _FLAGS)
_FENCE = re.compile(r" {0,3}(`{3,}(?=[^`]*$)|~{3,})(.*)")
"""What opens a block of code, or closes one. After backticks there is no backtick (CommonMark)."""
_CLOSED = "<!-- closed -->"
"""Stands after a fence that was closed here and not by the turn."""
_ENDS_CLOSED = re.compile(r"(?:^|(?<=\n))<!-- closed(!*) -->\Z")
_OURS = re.compile(rf"^{re.escape(MARKER)}[ \t]*(\r?)$", re.MULTILINE)


class Part(NamedTuple):
    """A turn of the file, or the system text; `edited` says that a person changed an answer."""

    role: str
    content: str
    edited: bool = False


def write(name: str, parts: Iterable[Part]) -> str:
    """Turns under headings."""
    turns = [
        f"## {_HEADINGS[part.role]}{_EDITED * part.edited}\n\n{_guarded(part.content)}"
        for part in parts
    ]
    return "\n\n".join([f"# {name}", MARKER, *turns]) + "\n"


def read(text: str) -> tuple[str, list[Part]]:
    """The name, "" where there is none, and the turns. Raises InvalidRequest for other Markdown."""
    first = _MARK.search(text)
    ours = _OURS.search(text, 0, first.start() if first else len(text))
    if ours is None or ours[1]:  # or a program has ended all lines as Windows does
        text = text.replace("\r\n", "\n")
    marks = list(_MARK.finditer(text)) if ours else list(_outside_code(text))
    if not marks and not ours:
        raise InvalidRequest(
            "This is no conversation: Markdown needs the headings '## You' and '## Model'."
        )
    parts = []
    for mark, end in zip(marks, [*(mark.start() for mark in marks[1:]), len(text)], strict=False):
        part = text[mark.end() : end].removeprefix("\n")
        content = _exactly(part, end == len(text)) if ours else _shallower(part).strip("\n")
        role = _ROLE_OF[mark[1].lower()]
        parts.append(Part(role, content, role == "assistant" and mark[2] is not None))
    title = re.match(r"# +(.+)", text)
    return title[1].strip() if title else "", parts


def _guarded(text: str) -> str:
    """A text that cannot end its turn, and cannot take the next one into its code."""
    text = _DEEP.sub(r"#\g<0>", text)
    fence = _open_fence(text)
    if fence:
        return f"{text}\n{fence}\n{_CLOSED}"
    return _ENDS_CLOSED.sub(lambda found: f"<!-- closed{found[1]}! -->", text)


def _exactly(part: str, last: bool) -> str:
    """The text of a turn as it was given to `_guarded`."""
    text = part.removeprefix("\n").removesuffix("\n" if last else "\n\n")
    found = _ENDS_CLOSED.search(text)
    if found and found[1]:
        text = f"{text[: found.start()]}<!-- closed{found[1][1:]} -->"
    elif found:
        text = text[: found.start()].removesuffix("\n").rpartition("\n")[0]
    return _DEEPER.sub(lambda line: line[0][1:], text)


def _open_fence(text: str) -> str:
    """What would close the block of code in which a text ends; "" where it ends in none."""
    *_, (_, _, fence) = _fenced(text)
    return fence


def _fenced(text: str) -> Iterator[tuple[int, str, str]]:
    """The lines of a text, each with where it begins and the fence that is open after it."""
    fence, at = "", 0
    for line in text.split("\n"):
        found = _FENCE.match(line)
        if found and not fence:
            fence = found[1]
        elif found and found[1].startswith(fence) and not found[2].strip():
            fence = ""
        yield at, line, fence
        at += len(line) + 1


def _outside_code(text: str) -> Iterator[re.Match[str]]:
    """Headings of turns outside blocks of code; one that is never closed is none."""
    lines = list(_fenced(text))
    opened = next((n for n in reversed(range(len(lines))) if not lines[n][2]), -1) + 1
    if opened < len(lines):
        end = lines[opened][0]
        rest = end + len(lines[opened][1]) + 1
        yield from _outside_code(text[:end])
        yield from _MARK.finditer(text, rest)
        return
    before = ""
    for at, _, fence in lines:
        mark = None if fence or before else _MARK.match(text, at)
        before = fence
        if mark:
            yield mark


def _shallower(text: str) -> str:
    """The headings as an older file of ours had them, where those in code had no more signs."""
    before, lines = "", []
    for _, line, fence in _fenced(text):
        code, before = fence or before, fence
        lines.append(line[1:] if not code and _DEEPER.match(line) else line)
    return "\n".join(lines)
