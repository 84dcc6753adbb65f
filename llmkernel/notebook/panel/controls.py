"""What the controls of a panel hold: sampling parameters, presets, and which of them are shown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from llmkernel.errors import InvalidRequest
from llmkernel.params import BOUNDS, SamplingParams

SHOWN = (
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "repetition_penalty",
    "max_tokens",
    "seed",
    "stop",
)
"""The parameters that have a control. Others may be given in Python and are kept."""
FIXED = ("n", "best_of", "logprobs", "prompt_logprobs")
"""A panel shows one answer and no scores."""
PRESETS: dict[str, dict[str, Any]] = {
    "Model's own": {},
    "Exact": {"temperature": 0.0},
    "Balanced": {"temperature": 0.7, "top_p": 0.9},
    "Inventive": {"temperature": 1.1, "min_p": 0.05},
}
_SLIDER_ENDS = {"temperature": 2.0, "top_k": 200, "repetition_penalty": 2.0}


class Controls:
    """The parameters of the answers to come, and named sets of them with a system prompt."""

    def __init__(self, **params: Any) -> None:
        self.values: dict[str, Any] = {}
        self.presets: dict[str, dict[str, Any]] = dict(PRESETS)
        self.set(params)

    @property
    def params(self) -> SamplingParams:
        """The parameters of a request."""
        return SamplingParams.build(**self.values)

    def set(self, changes: Mapping[str, Any]) -> None:
        """Change values; None takes one back. Raises InvalidRequest, and keeps what was."""
        for name in changes:
            if name in FIXED:
                raise InvalidRequest(f"A panel shows one answer at a time: leave {name} out.")
        values = {**self.values, **changes}
        values = {name: value for name, value in values.items() if value is not None}
        SamplingParams.build(**values)
        self.values = values

    def take(self, preset: str) -> str | None:
        """Take a preset's values; returns its system prompt, where it has one."""
        if preset not in self.presets:
            raise InvalidRequest(f"There is no preset {preset!r}: {', '.join(self.presets)}.")
        chosen = dict(self.presets[preset])
        system: str | None = chosen.pop("system", None)
        others = {name: value for name, value in self.values.items() if name not in SHOWN}
        self.values = {}
        self.set({**others, **chosen})
        return system

    def keep(self, name: str, system: str) -> None:
        """Keep the present values under a name. Raises InvalidRequest for one of our own."""
        name = name.strip()
        if not name or name in PRESETS:
            raise InvalidRequest("Give the preset a name of its own.")
        shown = {key: value for key, value in self.values.items() if key in SHOWN}
        self.presets[name] = shown | ({"system": system} if system else {})


def descriptions() -> list[dict[str, Any]]:
    """What a front end has to know of each control: its range and its default."""
    defaults = SamplingParams()
    return [
        {
            "name": name,
            "low": BOUNDS[name].low if name in BOUNDS else None,
            "high": _SLIDER_ENDS.get(name, BOUNDS[name].high if name in BOUNDS else None),
            "default": msgspec.to_builtins(getattr(defaults, name)),
        }
        for name in SHOWN
    ]
