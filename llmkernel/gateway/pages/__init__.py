"""The two pages for people: status and API. Nothing in them comes from another site."""

from __future__ import annotations

import base64
import functools
import hashlib
import html
from importlib import resources
from types import MappingProxyType
from typing import Any

from llmkernel.gateway.pages.api import operations


def _file(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


_STYLE = _file("page.css")
_SCRIPT = _file("status.js")
HTML_HEADERS = MappingProxyType(
    {
        "Content-Security-Policy": (
            f"default-src 'none'; style-src {_hash(_STYLE)}; script-src {_hash(_SCRIPT)}; "
            "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
        ),
        "Referrer-Policy": "no-referrer",
    }
)
"""The page may run the one script and the one style it came with, and ask nobody else."""


@functools.cache
def status_page() -> bytes:
    """The status page, which asks for its numbers by itself."""
    body = _file("status.html")
    return _page("llmkernel", body, f"<script>{_SCRIPT}</script>")


def docs_page(document: dict[str, Any]) -> bytes:
    """An OpenAPI document as a page to read."""
    title = html.escape(f"{document['info']['title']} {document['info']['version']}")
    return _page(f"{title}: API", operations(document))


def _page(title: str, body: str, tail: str = "") -> bytes:
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta name="color-scheme" content="light dark"><title>{title}</title>'
        f"<style>{_STYLE}</style></head><body>{body}{tail}</body></html>\n"
    ).encode()
