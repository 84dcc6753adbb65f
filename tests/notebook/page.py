"""What a page would do: HTML looked through for anything that Markdown of a model may not bring."""

from __future__ import annotations

import re
from html.parser import HTMLParser

from markdown_it import MarkdownIt
from nbconvert.filters.markdown_mistune import markdown2html_mistune

_TAGS = {"p", "em", "strong", "s", "del", "code", "pre", "a", "span", "small", "hr", "br", "div"}
_TAGS |= {"ul", "ol", "li", "dl", "dt", "dd", "blockquote", "section"}
_TAGS |= {"table", "thead", "tbody", "tr", "th", "td", "h1", "h2", "h3", "h4", "h5", "h6"}
_VALUES = {
    "href": r"(https?://|mailto:|#).*",
    "class": r"[\w +#.-]*",
    "id": r".*",
    "style": r"text-align:\s?(left|right|center);?",
    "align": r"left|right|center",
    "start": r"\d+",
}


class Page(HTMLParser):
    """The visible text of a page, and in `dangers` whatever could run, fetch or mislead."""

    tags, values = _TAGS, _VALUES

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.pieces: list[str] = []
        self.dangers: list[str] = []
        self.links: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "input" and ("type", "checkbox") in attrs:
            return
        if tag not in self.tags:
            self.dangers.append(f"<{tag}>")
        for name, value in attrs:
            if not re.fullmatch(self.values.get(name, r"(?!)"), value or "", re.DOTALL):
                self.dangers.append(f"{tag} {name}={value}")
            if name == "href":
                self.links.append(value or "")

    def handle_data(self, data: str) -> None:
        self.pieces.append(data)

    def handle_comment(self, data: str) -> None:
        self.dangers.append(f"<!--{data}-->")

    def handle_decl(self, decl: str) -> None:
        self.dangers.append(f"<!{decl}>")

    def handle_pi(self, data: str) -> None:
        self.dangers.append(f"<?{data}>")

    @property
    def text(self) -> str:
        """All text, without blanks."""
        return "".join("".join(self.pieces).split())


class OwnPage(Page):
    """The same for HTML that is our own but for the texts in it."""

    tags = _TAGS | {"label", "i", "b", "details", "summary", "style", "input"}
    values = _VALUES | {
        "style": r"[\w :;,.()%-]*",
        "title": r".*",
        "type": r"radio",
        "name": r"llmk-\w+",
        "data-lm-suppress-shortcuts": r"true",
    }

    def __init__(self, html: str) -> None:
        self.titles: list[str] = []
        super().__init__(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        super().handle_starttag(tag, attrs)
        self.titles += [value or "" for name, value in attrs if name == "title"]


def as_nbconvert(markdown: str) -> Page:
    """As nbconvert's HTML exporter shows it."""
    return Page(markdown2html_mistune(markdown))


def as_commonmark(markdown: str) -> Page:
    """As a CommonMark front end that lets raw HTML through shows it."""
    parser = MarkdownIt("commonmark", {"html": True, "maxNesting": 100})
    return Page(parser.enable(["table", "strikethrough"]).render(markdown))
