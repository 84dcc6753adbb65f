"""Where a piece of Python ends inside other text: for `{{ … }}` and for `--for NAME in EXPR`."""

from __future__ import annotations

_CLOSERS = {"(": ")", "[": "]", "{": "}"}
_OPENERS = frozenset(_CLOSERS)


def template_end(text: str, start: int) -> int | None:
    """Index of the `}}` that closes a `{{` whose inside begins at `start`.

    None where there is none: the braces close one at a time, as those of code do, or never.
    """
    depth, index = 0, start
    while index < len(text):
        character = text[index]
        if character in "\"'":
            index = _string_end(text, index)
        elif character in _OPENERS:
            depth += 1
        elif character in ")]}" and depth:
            depth -= 1
        elif character == "}":
            return index if text.startswith("}}", index) else None
        index += 1
    return None


def word_end(text: str, start: int, *, brackets: bool = False) -> int:
    """Index after the word that begins at `start`: up to a blank outside quotes and templates.

    With `brackets`, a blank inside round, square or curly ones belongs to the word too.
    """
    depth, index = 0, start
    while index < len(text) and (depth or not text[index].isspace()):
        character = text[index]
        closing = template_end(text, index + 2) if text.startswith("{{", index) else None
        if closing is not None:
            index = closing + 1
        elif character in "\"'":
            index = _string_end(text, index)
        elif character == "\\":
            index += 1
        elif brackets and character in _OPENERS:
            depth += 1
        elif brackets and character in ")]}":
            depth -= 1
        index += 1
    return min(index, len(text))


def _string_end(text: str, start: int) -> int:
    """Index of the quote that ends the string at `start`; `start` itself where none does."""
    index = start + 1
    while index < len(text) and text[index] != text[start]:
        index += 2 if text[index] == "\\" else 1
    return index if index < len(text) else start
