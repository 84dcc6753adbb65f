"""Templates of `map`: `{{ value }}` stands for the item, `{{ value.name }}` for a part of it.

Only double braces mean something, and only names inside them; what is put in is text and is
never looked at again. Prompts of notebooks can do more (notebook/prompt.py); this needs nothing
that is not in the core.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from llmkernel.errors import InvalidRequest

_PLACE = re.compile(r"\{\{\s*(.*?)\s*\}\}", re.DOTALL)
_NAME = re.compile(r"value(?:\.(\w+)|\[['\"]([^'\"]+)['\"]\])?")


class Template:
    """A text with places for an item. Raises InvalidRequest for one that has none, or others."""

    def __init__(self, text: str) -> None:
        if not isinstance(text, str):
            raise InvalidRequest(f"template must be text, and was {type(text).__name__}.")
        self._parts = _PLACE.split(text)
        self._fields = [_field(inside) for inside in self._parts[1::2]]
        if not self._fields:
            raise InvalidRequest(
                "The template has no {{ value }}, so all prompts would be the same.",
                field="template",
            )

    def fill(self, value: Any) -> str:
        """The text with the item in its places. Raises InvalidRequest for one without a part."""
        found = [_part(value, field) for field in self._fields]
        pieces = [self._parts[0]]
        for item, after in zip(found, self._parts[2::2], strict=True):
            pieces += [str(item), after]
        return "".join(pieces)


def _field(inside: str) -> str | None:
    match = _NAME.fullmatch(inside)
    if match is None:
        raise InvalidRequest(
            f"{{{{ {inside} }}}} cannot be filled: a template has {{{{ value }}}}, or "
            "{{ value.name }} for a part of the item.",
            field="template",
        )
    return match[1] or match[2]


def _part(value: Any, field: str | None) -> Any:
    if value is None or value != value:
        raise InvalidRequest("There is no value here to put into the template.")
    if field is None:
        return value
    found = value.get(field) if isinstance(value, Mapping) else getattr(value, field, None)
    if found is None or found != found:
        raise InvalidRequest(f"The item has no {field!r} to put into the template.")
    return found
