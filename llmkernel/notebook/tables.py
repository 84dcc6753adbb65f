"""Tables as output of a cell: Markdown for the eye, plain text for everything else."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from llmkernel.notebook.inline import code, escape
from llmkernel.notebook.untrusted import plain

Bundle = dict[str, str]
"""MIME type → text."""

HTML, MARKDOWN, PLAIN = "text/html", "text/markdown", "text/plain"


class Marked(str):
    """A cell whose Markdown is not just its text escaped. Who makes one answers for its safety."""

    __slots__ = ("markdown",)
    markdown: str

    @classmethod
    def code(cls, text: str) -> Marked:
        """Text that is shown as code."""
        return cls.of(text, code(text))

    @classmethod
    def of(cls, text: str, markdown: str) -> Marked:
        """Text, and the Markdown of one line that shows it."""
        cell = cls(text)
        cell.markdown = markdown
        return cell


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> Bundle:
    """Rows under headings. Cells are text, shown as it is, in one line each."""
    lines = [[_one_line(cell) for cell in row] for row in rows]
    rule = ["---"] * len(headings)
    shown = [[_markdown(cell) for cell in row] for row in ([*headings], *lines)]
    shown.insert(1, rule)
    return {
        MARKDOWN: "\n".join(f"| {' | '.join(row)} |" for row in shown),
        PLAIN: _columns([[*headings], *lines]),
    }


def fields(pairs: Iterable[tuple[str, str]]) -> Bundle:
    """Names and values."""
    return table(("", ""), pairs) | {PLAIN: _columns([list(pair) for pair in pairs])}


def sentence(text: str) -> Bundle:
    """A sentence, shown as it is."""
    return {MARKDOWN: escape(text), PLAIN: plain(text)}


def stack(*bundles: Bundle) -> Bundle:
    """One bundle with the contents of several, one under the other."""
    return {
        kind: "\n\n".join(bundle[kind] for bundle in bundles if bundle.get(kind))
        for kind in (MARKDOWN, PLAIN)
    }


def shorten(text: str, limit: int) -> str:
    """`text` in one line of `limit` characters at most; an ellipsis says that there is more."""
    line = _one_line(text)
    return line if len(line) <= limit else line[: limit - 1].rstrip() + "…"


def _columns(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def _markdown(cell: str) -> str:
    return cell.markdown if isinstance(cell, Marked) else escape(cell)


def _one_line(cell: str) -> str:
    return cell if isinstance(cell, Marked) else " ".join(plain(cell).split())
