"""Text of a model as plain text: what a terminal or a browser would obey is taken out.

The same goes for everything else that did not come from the person at the keyboard: logs,
names of models, descriptions of progress.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import quote

_DIRECTION = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
_REMOVED = dict.fromkeys([*range(0x20), 0x7F, *range(0x80, 0xA0), *map(ord, _DIRECTION)])
_REMOVED = {code: None for code in _REMOVED if chr(code) not in "\n\t"}
_ESCAPE = re.compile(
    "\x1b(?:\\[[0-?]*[ -/]*[@-~]|\\][^\x07\x1b\n]*(?:\x07|\x1b\\\\)?|[PX^_][^\x1b\n]*(?:\x1b\\\\)?)"
)

_HALF = re.compile("[\ud800-\udfff]")
_SCHEMES = re.compile(r"(?:https?://[^/]|mailto:[^?]|#)", re.IGNORECASE)
_URL_SAFE = "-._~:/?#@!*+,;=%&"


def plain(text: str) -> str:
    """`text` without terminal sequences, control characters and overrides of direction.

    Newlines and tabs stay; a carriage return becomes a newline.
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if "\x1b" in text:
        text = _ESCAPE.sub("", text)
    return text.translate(_REMOVED)


def whole(value: Any) -> Any:
    """`value`, a text or JSON, with halves of surrogate pairs put together or replaced.

    They come from pages and files, where a half is possible, and are no text on any wire.
    """
    if isinstance(value, str):
        return value if value.isascii() or not _HALF.search(value) else _joined(value)
    if isinstance(value, dict):
        return {whole(name): whole(part) for name, part in value.items()}
    if isinstance(value, list):
        return [whole(part) for part in value]
    return value


def _joined(text: str) -> str:
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def printable(text: str) -> str:
    """`text` with single control characters taken out, so that pieces of a stream may be given.

    What a removed ESC leaves of a sequence stays visible and harmless.
    """
    return text.translate(_REMOVED)


def destination(href: str) -> str | None:
    """Where a link may lead, in characters that mean nothing to any parser; None where nowhere.

    Only http, https, mailto and places in the same page are left: a relative address would
    be an address of the notebook server.
    """
    href = href.strip()
    if not _SCHEMES.match(href):
        return None
    href = re.sub(r"%(?![0-9A-Fa-f]{2})", "%25", href)
    # two at signs are a placeholder for mathematics where JupyterLab renders
    return quote(href, safe=_URL_SAFE).replace("@@", "%40%40").replace("&", "&amp;")
