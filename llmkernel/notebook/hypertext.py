"""HTML as output of a cell, for what Markdown cannot say: columns, colours, cards.

A notebook that somebody else ran is shown by JupyterLab without `<style>`, `tabindex`, `role`,
`aria-*`, `data-*` and CSS variables; it keeps `class`, `title`, `<details>` and most of `style`,
grids and colours with an opacity included. So what has to be seen is in `style` attributes and
works on any background, and a `<style>` only adds to it.

Text of a model comes in by two ways alone: `text`, which escapes it, and `of`, which renders
Markdown that was made safe.
"""

from __future__ import annotations

import functools
import html
from collections.abc import Mapping, Sequence
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.token import Token

from llmkernel.notebook import mathematics, tables
from llmkernel.notebook.tables import HTML, MARKDOWN, PLAIN, Bundle
from llmkernel.notebook.untrusted import plain

_NO_MATHEMATICS = "tex2jax_ignore mathjax_ignore"
"""The classes of elements in which no dollar sign begins mathematics, here and in nbconvert."""
_TEXT_STYLE = "margin:0;white-space:pre-wrap;overflow-wrap:anywhere"


def text(value: str) -> str:
    """Text for between tags or inside an attribute in double quotes."""
    return html.escape(plain(value)).replace("\n", "&#10;")


def element(tag: str, inside: str, *, style: str = "", classes: str = "", title: str = "") -> str:
    """One element; `inside` is HTML, `title` is text."""
    attributes = f' class="{classes}"' if classes else ""
    attributes += f' style="{style}"' if style else ""
    attributes += f' title="{text(title)}"' if title else ""
    return f"<{tag}{attributes}>{inside}</{tag}>"


def literal(value: str, tag: str = "span", *, style: str = "") -> str:
    """An element with text in which nothing is taken for mathematics."""
    return element(tag, text(value), style=style, classes=_NO_MATHEMATICS)


def of(bundle: Mapping[str, str]) -> str:
    """The HTML of a bundle: its own, or what its Markdown or its text says."""
    if HTML in bundle:
        return bundle[HTML]
    if MARKDOWN in bundle:
        return str(_renderer().render(bundle[MARKDOWN])).strip()
    return literal(bundle[PLAIN], "pre", style=_TEXT_STYLE)


def stack(*bundles: Bundle) -> Bundle:
    """One bundle with the contents of several, one under the other, in HTML too.

    Markdown only where all have it: of some alone it would leave the others out.
    """
    whole = tables.stack(*bundles) | {HTML: "\n".join(of(bundle) for bundle in bundles)}
    if not all(MARKDOWN in bundle for bundle in bundles):
        del whole[MARKDOWN]
    return whole


@functools.cache
def _renderer() -> MarkdownIt:
    """For safe Markdown only: the raw HTML in it is our own."""
    parser = MarkdownIt("commonmark", {"html": True, "maxNesting": 100})
    parser.enable(["table", "strikethrough"])
    mathematics.install(parser)
    parser.add_render_rule("math_inline", _mathematics)
    parser.add_render_rule("math_block", _mathematics)
    return parser


def _mathematics(_: Any, tokens: Sequence[Token], index: int, *__: Any) -> str:
    """As it was written, for the front end to find; a display stands in its own paragraph."""
    token = tokens[index]
    content = text(mathematics.source(token.content) or "").replace("&#10;", " ")
    if token.type == "math_block":
        return f"<p>$${content}$$</p>\n"
    return f"{token.markup}{content}{token.markup}"
