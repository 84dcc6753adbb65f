"""The content of a message: text, or a list of parts of which text is the only kind served."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from llmkernel.errors import InvalidRequest, UnsupportedField
from llmkernel.gateway.translation.refusals import Feature, unsupported

Content = str | list[dict[str, Any]]

_FEATURES = {
    "image_url": Feature.IMAGES,
    "input_image": Feature.IMAGES,
    "image": Feature.IMAGES,
    "video_url": Feature.IMAGES,
    "file": Feature.IMAGES,
    "input_file": Feature.IMAGES,
    "document": Feature.IMAGES,
    "search_result": Feature.IMAGES,
    "input_audio": Feature.AUDIO,
    "audio_url": Feature.AUDIO,
    "tool_use": Feature.TOOLS,
    "tool_result": Feature.TOOLS,
    "server_tool_use": Feature.TOOLS,
    "thinking": Feature.REASONING,
    "redacted_thinking": Feature.REASONING,
}


def text(
    content: Content | None,
    where: str,
    kinds: Collection[str] = ("text",),
    notes: Collection[str] = (),
) -> str:
    """The text of a content. `kinds` are types of part that are text, `notes` fields without effect.

    Parts follow one another without a separator, as chat templates write them. Raises
    InvalidRequest or UnsupportedField that name the place.
    """
    if isinstance(content, str):
        return content
    if content is None:
        raise InvalidRequest(f"{where} must be text, and is missing.", field=where)
    return "".join(
        _part(part, f"{where}[{number}]", kinds, notes) for number, part in enumerate(content)
    )


def _part(
    part: Mapping[str, Any], where: str, kinds: Collection[str], notes: Collection[str]
) -> str:
    kind = part.get("type")
    if not isinstance(kind, str) or kind not in kinds:
        raise _no_text(kind, where, kinds)
    for name, value in part.items():
        if name not in ("type", "text", *notes) and value is not None:
            raise UnsupportedField(
                f"{where}.{name} is not supported here. Leave it out.", field=f"{where}.{name}"
            )
    value = part.get("text")
    if not isinstance(value, str):
        raise InvalidRequest(f"{where}.text must be text.", field=f"{where}.text")
    return value


def _no_text(kind: Any, where: str, kinds: Collection[str]) -> InvalidRequest:
    if isinstance(kind, str) and kind in _FEATURES:
        return unsupported(f"{where}.type", _FEATURES[kind])
    return InvalidRequest(
        f"{where}.type must be {' or '.join(kinds)}.", field=f"{where}.type"
    )
