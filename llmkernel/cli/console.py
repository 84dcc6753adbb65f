"""Writing to a terminal, a file or a pipe: the one place through which commands print.

Text of a model is untrusted: on a terminal its control characters are shown, not obeyed.
Into a file or a pipe it goes unchanged.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import Any, TextIO

import click
import msgspec

from llmkernel.printable import printable


class PipeClosed(Exception):
    """The reader of our output has gone, as `head` does when it has its lines."""


def write(text: str, *, untrusted: bool = False, err: bool = False) -> None:
    """Write and flush `text` as it is, without a newline.

    Raises PipeClosed where the reader of standard output has gone, and ClickException where
    it cannot be written for another reason.
    """
    stream = _stream(err)
    try:
        if untrusted:
            stream.write(printable(text) if stream.isatty() else text)
        else:
            click.echo(text, nl=False, err=err)  # drops colours where there is no terminal
        stream.flush()
    except BrokenPipeError:
        raise PipeClosed from None
    except OSError as error:  # a full disk
        raise click.ClickException(f"The output cannot be written: {error.strerror}.") from None


def line(text: str = "", *, untrusted: bool = False, err: bool = False) -> None:
    """Write `text` and a newline."""
    write(text + "\n", untrusted=untrusted, err=err)


def dim(text: str) -> str:
    """`text` in a quiet shade; plain where the output is no terminal."""
    return click.style(text, dim=True)


def bold(text: str) -> str:
    """`text` in bold; plain where the output is no terminal."""
    return click.style(text, bold=True)


def json_line(value: Any) -> None:
    """Write `value` as one line of JSON: a whole answer, or one record of NDJSON."""
    line(msgspec.json.encode(plain(value)).decode())


def plain(value: Any) -> Any:
    """`value` as dicts and lists, with every field of a Struct in it, defaults too.

    msgspec leaves out defaults, which is right on the wire; a script wants the same keys
    every time.
    """
    if isinstance(value, msgspec.Struct):
        return {name: plain(getattr(value, name)) for name in value.__struct_fields__}
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Write rows in columns as wide as their widest entry; numbers are aligned right."""
    text = [tuple(printable(cell) for cell in row) for row in rows]
    widths = [max(map(len, column)) for column in zip(headings, *text, strict=True)]
    right = [bool(text) and all(_numeric(row[i]) for row in text) for i in range(len(headings))]
    for row in (tuple(headings), *text):
        cells = [
            cell.rjust(width) if number else cell.ljust(width)
            for cell, width, number in zip(row, widths, right, strict=True)
        ]
        line("  ".join(cells).rstrip())


def fields(pairs: Iterable[tuple[str, str]]) -> None:
    """Write names and values in two columns."""
    shown = list(pairs)
    width = max((len(name) for name, _ in shown), default=0)
    for name, value in shown:
        line(f"{name.ljust(width)}  {printable(value)}")


def _numeric(cell: str) -> bool:
    return cell == "-" or cell.replace(".", "").replace(",", "").replace(" ms", "").isdigit()


def _stream(err: bool) -> TextIO:
    return sys.stderr if err else sys.stdout
