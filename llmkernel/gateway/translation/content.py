"""The content of a message: text, or a list of parts of which text is the only kind served."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, NoReturn

from llmkernel.errors import InvalidRequest, UnsupportedField
from llmkernel.gateway import features
from llmkernel.gateway.translation.refusals import REASONING

Content = str | list[dict[str, Any]]

_FEATURES = {
    "image_url": features.images,
    "input_image": features.images,
    "image": features.images,
    "video_url": features.images,
    "file": features.images,
    "input_file": features.images,
    "document": features.images,
    "search_result": features.images,
    "input_audio": features.audio,
    "audio_url": features.audio,
    "tool_use": features.tools,
    "tool_result": features.tools,
    "server_tool_use": features.tools,
    "thinking": REASONING,
    "redacted_thinking": REASONING,
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
        _refuse(kind, f"{where}.type", kinds)
    for name, value in part.items():
        if name not in ("type", "text", *notes) and value is not None:
            raise UnsupportedField(
                f"{where}.{name} is not supported here. Leave it out.", field=f"{where}.{name}"
            )
    value = part.get("text")
    if not isinstance(value, str):
        raise InvalidRequest(f"{where}.text must be text.", field=f"{where}.text")
    return value


def _refuse(kind: Any, where: str, kinds: Collection[str]) -> NoReturn:
    if isinstance(kind, str) and kind in _FEATURES:
        _FEATURES[kind](kind, where)
    raise InvalidRequest(f"{where} must be {' or '.join(kinds)}.", field=where)
