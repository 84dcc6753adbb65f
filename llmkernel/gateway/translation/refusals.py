"""What no worker does yet: the one list of it, and the refusal that names the field.

A feature that comes leaves this list, and the dialects' tables of fields that name it.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any, NamedTuple

import msgspec

from llmkernel.errors import UnsupportedField


class Feature(Enum):
    """What a field asks for, in words."""

    TOOLS = "calling tools"
    GRAMMAR = "answers bound to a format or a grammar"
    IMAGES = "images and files"
    AUDIO = "audio"
    ADAPTERS = "adapters"
    REASONING = "control of reasoning"
    TEMPLATES = "chat templates from a request"
    INFILLING = "text after the answer"
    STORAGE = "storing answers beyond the running gateway"
    CONTEXT = "cutting or summarising a conversation that is too long"
    NAMES = "names of participants"
    SCHEDULING = "service tiers and background work"
    LOADING = "settings of a model at load time; they belong to `llmkernel start`"
    SAMPLER = "this sampler"
    PREDICTION = "predicted outputs"


class Refused(NamedTuple):
    """A known field that is refused unless its value changes nothing."""

    feature: Feature
    neutral: tuple[Any, ...] = ()
    """Values that ask for nothing, beside null."""


def refuse(request: msgspec.Struct, fields: Mapping[str, Refused], where: str = "") -> None:
    """Raise UnsupportedField for the first field that asks for something."""
    for name, (feature, neutral) in fields.items():
        value = getattr(request, name)
        if value is not None and value not in neutral:
            raise unsupported(where + name, feature)


def unsupported(field: str, feature: Feature) -> UnsupportedField:
    """The refusal of `field`, which asks for `feature`."""
    return UnsupportedField(
        f"{field} is not supported here: it asks for {feature.value}. Leave it out.", field=field
    )
