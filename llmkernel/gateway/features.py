"""What clients may ask for that the engine does not do yet: refused by name, never ignored.

This is the one place where each will plug in: a function here becomes the one that
turns the field into parameters of a request, and every dialect has it.
"""

from __future__ import annotations

from typing import Any

from llmkernel.errors import UnsupportedField

_WHY = {
    "grammar": "Answers cannot be constrained to a grammar or a schema yet",
    "tools": "Tools are not supported yet",
    "adapter": "Adapters (LoRA) are not supported yet",
    "images": "Images are not supported: this model reads text",
    "watermark": "Watermarks are not supported",
    "audio": "Audio is not supported",
}


def grammar(value: Any, field: str) -> None:
    """Constrained answers. Raises UnsupportedField for anything but None."""
    _refuse("grammar", value, field)


def tools(value: Any, field: str) -> None:
    """Tools and the choice among them. An empty list asks for nothing."""
    _refuse("tools", value or None, field)


def adapter(value: Any, field: str) -> None:
    """Adapters by id."""
    _refuse("adapter", value or None, field)


def images(value: Any, field: str) -> None:
    """Parts of a message that are no text."""
    _refuse("images", value, field)


def watermark(value: Any, field: str) -> None:
    """Watermarks in the choice of tokens."""
    _refuse("watermark", value or None, field)


def audio(value: Any, field: str) -> None:
    """Audio in or out."""
    _refuse("audio", value, field)


def _refuse(feature: str, value: Any, field: str) -> None:
    if value is not None:
        raise UnsupportedField(f"{_WHY[feature]}: leave {removable(field)} out.", field=field)


def removable(field: str) -> str:
    """What to leave out on account of a field: nothing can do without its type or its role."""
    return field.removesuffix(".type").removesuffix(".role")
