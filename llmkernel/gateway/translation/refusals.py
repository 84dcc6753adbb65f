"""Fields that are known here and not served: refused by name, unless their value asks for nothing.

What the engine may do one day is refused by `features`, where it will plug in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import msgspec

from llmkernel.errors import UnsupportedField
from llmkernel.gateway.features import removable

Feature = Callable[[Any, str], None]
"""Refuses a value, given the name of its field."""


class Refused(NamedTuple):
    """A known field that is refused unless its value changes nothing."""

    feature: Feature
    neutral: tuple[Any, ...] = ()
    """Values that ask for nothing, beside null."""


def beyond(what: str) -> Feature:
    """The feature of asking for `what`, which is not this project's."""

    def refuse_it(value: Any, field: str) -> None:
        if value is not None:
            raise UnsupportedField(
                f"{removable(field)} is not supported: it asks for {what}. Leave it out.",
                field=field,
            )

    return refuse_it


def refuse(request: msgspec.Struct, fields: Mapping[str, Refused], where: str = "") -> None:
    """Raise UnsupportedField for the first field that asks for something."""
    for name, (feature, neutral) in fields.items():
        value = getattr(request, name)
        if value is not None and value not in neutral:
            feature(value or True, where + name)  # an empty object asks for something too


REASONING = beyond("control of reasoning")
TEMPLATES = beyond("another chat template than the model's own")
INFILLING = beyond("a text that comes after the answer")
STORAGE = beyond("storing answers")
CONTEXT = beyond("cutting or summarising what is too long")
NAMES = beyond("names of participants")
SCHEDULING = beyond("service tiers or work in the background")
LOADING = beyond("settings that a worker has from its start")
SAMPLER = beyond("another sampler")
PREDICTION = beyond("predicted outputs")
MODERATION = beyond("moderation")
