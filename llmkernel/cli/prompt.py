"""Reading what a person or a pipe says: a prompt from standard input, a turn of a conversation."""

from __future__ import annotations

import contextlib
import os
import sys

from llmkernel.cli import console
from llmkernel.errors import InvalidRequest
from llmkernel.params import has_lone_surrogate
from llmkernel.protocol import MAX_PROMPT_BYTES

FENCE = '"""'


def piped() -> str:
    """All of standard input as text, without the one newline that `echo` adds. Raises what `utf8` raises."""
    text = utf8(sys.stdin.buffer.read(MAX_PROMPT_BYTES + 2))
    return text.removesuffix("\n")


def utf8(data: bytes) -> str:
    """The text of `data`.

    Raises InvalidRequest where it is longer than a prompt may be, or where it is no UTF-8.
    """
    if len(data) > MAX_PROMPT_BYTES + 1:
        raise InvalidRequest(f"The input is longer than {MAX_PROMPT_BYTES:,} bytes.")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidRequest(
            f"The input is not UTF-8: byte 0x{data[error.start]:02x} at offset {error.start}. "
            "Convert it first, for example with: iconv -f latin1 -t utf-8"
        ) from None


def typed(text: str) -> str:
    """`text` as a person gave it, in the command or at the prompt. Raises what `utf8` raises."""
    # bytes that are no UTF-8 come from there as halves of surrogate pairs
    return utf8(os.fsencode(text)) if has_lone_surrogate(text) else text


class Turns:
    """The turns that somebody types, or the lines of a pipe.

    A turn is a line; one that ends with a backslash goes on in the next, and one that
    begins with three quotation marks up to the next three.
    """

    def __init__(self) -> None:
        self.interactive = sys.stdin.isatty()
        if self.interactive:
            with contextlib.suppress(ImportError):
                import readline  # noqa: F401 - gives input() editing and a history

    def next(self) -> str:
        """The next turn, which may be empty. Raises EOFError at the end of the input."""
        text = self._line("> ")
        if text.startswith(FENCE):
            return self._fenced(text.removeprefix(FENCE))
        while text.endswith("\\"):
            text = text[:-1] + "\n" + self._line("… ")
        return text

    def _fenced(self, text: str) -> str:
        while not text.rstrip().endswith(FENCE):
            text += "\n" + self._line("… ")
        return text.rstrip().removesuffix(FENCE).strip("\n")

    def _line(self, mark: str) -> str:
        if self.interactive and sys.stdout.isatty():
            return typed(input(mark))
        if self.interactive:
            console.write(mark, err=True)  # the answers go to a file, the marks to the person
        data = sys.stdin.buffer.readline(MAX_PROMPT_BYTES + 2)
        if not data:
            raise EOFError
        return utf8(data).rstrip("\r\n")
