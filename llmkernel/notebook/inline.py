r"""The inside of a paragraph, printed again so that no parser can find anything else in it.

Text is escaped whole. A piece of code is a code span only where its characters are harmless
even if some parser did not take it for one; otherwise it is `<code>` with numbered entities,
which every notebook front end shows the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from markdown_it.token import Token

from llmkernel.notebook import mathematics
from llmkernel.notebook.untrusted import destination

_BARE_URL = re.compile(
    r"(?<![\w@/])(?:https?://|www\.)[^\s<>\"'\\^`{|}]*[^\s<>\"'\\^`{|}.,;:!?()\[\]*~]"
)
_LINE_START = re.compile(r"([-+=:]|\d{1,9}[.)])")
_HARMLESS_CODE = re.compile(r"[\w.,:;(){}+\-*/=#%!?'\"^](?:[\w .,:;(){}+\-*/=#%!?'\"^]*\S)?")
_UNSAFE_IN_CODE = set("`<>&$@[]\\|~")
# Spans keep a dollar sign and a backslash from pairing up with the next one in the page,
# where mathematics is looked for a second time after Markdown is done.
_ESCAPES = str.maketrans(
    {
        "&": "&amp;",
        "<": "&lt;",
        ">": "&gt;",
        "`": "&#96;",
        "$": "<span>&#36;</span>",
        "\\": "<span>&#92;</span>",
        "\n": " ",
        "\t": " ",
        **{mark: f"&#{ord(mark)};" for mark in "[]"},  # some parsers miss a backslash here
        **{mark: "\\" + mark for mark in "*_~|#"},
    }
)
_MARKS = {"em", "strong", "s"}


def escape(text: str) -> str:
    """`text` as Markdown that shows just that, in the middle of a line."""
    return text.translate(_ESCAPES)


def entities(text: str) -> str:
    """`text` for inside an HTML element, with nothing left that Markdown could read."""
    return "".join(c if c.isalnum() or c in " \n" else f"&#{ord(c)};" for c in text)


def code(text: str) -> str:
    """A piece of code inside a line."""
    text = " ".join(text.split("\n"))
    if _HARMLESS_CODE.fullmatch(text) and not _UNSAFE_IN_CODE & set(text):
        return f"`{text}`"
    return f"<code>{entities(text)}</code>"


def line_start(text: str) -> str:
    """Escape what would make a list, a heading or a rule of the beginning of a line."""
    match = _LINE_START.match(text)
    return f"{text[: match.end() - 1]}\\{text[match.end() - 1 :]}" if match else text


def render(tokens: Iterable[Token], *, one_line: bool = False) -> str:
    """The children of an inline token as Markdown; `one_line` for headings and table cells."""
    printer = _Printer(one_line)
    for token in tokens:
        printer.add(token)
    return printer.finish()


class _Printer:
    def __init__(self, one_line: bool) -> None:
        self.parts: list[str] = []
        self.links: list[tuple[int, str | None]] = []
        self.one_line = one_line

    def add(self, token: Token) -> None:
        kind, _, side = token.type.rpartition("_")
        if kind in _MARKS:
            self.parts.append(token.markup)
        elif kind == "link":
            self._open_link(token) if side == "open" else self._close_link()
        else:
            self.parts.append(self._leaf(token))

    def finish(self) -> str:
        # a bracket that is left is a link's; after an exclamation mark it would be a picture's
        lines = "".join(self.parts).replace("![", "&#33;[").split("\n")
        return "\n".join(line_start(line.strip(" ")) for line in lines).strip("\n")

    def _leaf(self, token: Token) -> str:
        match token.type:
            case "code_inline":
                return code(token.content)
            case "math_inline":
                return self._math(token)
            case "softbreak":
                return " " if self.one_line else "\n"
            case "hardbreak":
                return " " if self.one_line else "\\\n"
            case "image":
                return _image(token, linked=bool(self.links))
            case _:
                return escape(token.content) if self.links else _text(token.content)

    def _math(self, token: Token) -> str:
        content = mathematics.source(token.content, in_table=self.one_line)
        assert content is not None, "the parser let through only what has a source"
        return f"{token.markup}{content}{token.markup}"

    def _open_link(self, token: Token) -> None:
        href = str(token.attrs.get("href", ""))
        self.links.append((len(self.parts), destination(href)))

    def _close_link(self) -> None:
        start, href = self.links.pop()
        label = "".join(self.parts[start:]).strip()
        del self.parts[start:]
        self.parts.append(_link(label, href))


def _link(label: str, href: str | None) -> str:
    if href is None:
        return label
    return f"[{label or escape(href)}]({href})"


def _image(token: Token, *, linked: bool) -> str:
    """A link in place of the picture: to fetch it would tell its server what was asked."""
    label = escape(f"image: {token.content}" if token.content else "image")
    return label if linked else _link(label, destination(str(token.attrs.get("src", ""))))


def _text(content: str) -> str:
    """Text with its bare addresses made links, so that no escape gets into them."""
    parts, end = [], 0
    for match in _BARE_URL.finditer(content):
        url = match[0]
        if content[match.end() : match.end() + 1] == ")" and url.count("(") > url.count(")"):
            url += ")"
        href = destination(url if "://" in url else f"http://{url}")
        # without its colon or dot the label is not taken for an address once more
        label = escape(url).replace(":", "&#58;", 1).replace("www.", "www&#46;", 1)
        parts += [escape(content[end : match.start()]), _link(label, href)]
        end = match.start() + len(url)
    return "".join(parts) + escape(content[end:])
