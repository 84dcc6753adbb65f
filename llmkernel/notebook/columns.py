"""Answers side by side, as many columns as there is room for; under one another as text."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from llmkernel.notebook import hypertext
from llmkernel.notebook.inline import escape
from llmkernel.notebook.tables import HTML, MARKDOWN, PLAIN, Bundle
from llmkernel.notebook.untrusted import plain

_GRID = "display:grid;grid-template-columns:repeat(auto-fit,minmax(min(17em,100%),1fr));gap:0.75em"
_COLUMN = "min-width:0;overflow:auto;padding:0.4em 0.75em"
_COLUMN += ";border:1px solid rgba(128,128,128,0.4);border-radius:4px"
_TITLE = "font-weight:bold;opacity:0.8;margin-bottom:0.3em"


class Column(NamedTuple):
    """A heading, which is text, and what stands under it."""

    title: str
    body: Bundle


def columns(parts: Iterable[Column]) -> Bundle:
    """All columns; in Markdown and as text each under its heading."""
    parts = list(parts)
    below = [bundle for part in parts for bundle in (_heading(part.title), part.body) if bundle]
    shown = hypertext.stack(*below)
    return shown | {HTML: hypertext.element("div", "".join(map(_column, parts)), style=_GRID)}


def _heading(title: str) -> Bundle:
    return {MARKDOWN: f"**{escape(plain(title))}**", PLAIN: f"[{plain(title)}]"}


def _column(part: Column) -> str:
    title = hypertext.literal(part.title, "div", style=_TITLE)
    return hypertext.element("div", title + hypertext.of(part.body), style=_COLUMN)
