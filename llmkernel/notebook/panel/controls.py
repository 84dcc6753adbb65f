"""What the controls of a panel hold: sampling parameters, presets, and which of them are shown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from llmkernel.errors import InvalidRequest
from llmkernel.notebook.panel import checks
from llmkernel.notebook.panel.presets import PresetFile
from llmkernel.notebook.untrusted import plain
from llmkernel.params import BOUNDS, Bound, SamplingParams

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
_LONGEST_NAME = 60
_STEP = 0.01
"""Of the sliders for fractions (panel-js/src/drawer.js)."""
_SLIDER_ENDS = {"temperature": 2.0, "top_k": 200, "repetition_penalty": 2.0}


class Controls:
    """The parameters of the answers to come, and named sets of them with a system prompt.

    `file` has the sets that outlive this panel; without one they end with it.
    """

    def __init__(self, file: PresetFile | None = None, /, **params: Any) -> None:
        self.values: dict[str, Any] = {}
        self._file = file
        self._own: dict[str, dict[str, Any]] = {}
        self.set(params)

    @property
    def presets(self) -> dict[str, dict[str, Any]]:
        """All of them by name; ours cannot be taken the name of."""
        return PRESETS | {name: own for name, own in self._own.items() if name not in PRESETS}

    @property
    def own(self) -> list[str]:
        """The names of those that can be forgotten."""
        return [name for name in self.presets if name not in PRESETS]

    def reload(self) -> None:
        """See what other panels have kept. Raises InvalidRequest."""
        if self._file is not None:
            self._own = self._file.read()

    @property
    def params(self) -> SamplingParams:
        """The parameters of a request."""
        return SamplingParams.build(**self.values)

    def set(self, changes: Mapping[str, Any]) -> None:
        """Change values; None takes one back. Raises InvalidRequest, and keeps what was."""
        for name in checks.mapping(changes, "params"):
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
        system = chosen.pop("system", None)
        if not isinstance(system, str | None):
            raise InvalidRequest(f"The system prompt of the preset {preset!r} is no text.")
        # what the preset leaves out goes back to its default
        self.set(dict.fromkeys(name for name in self.values if name in SHOWN) | chosen)
        return system

    def keep(self, name: str, system: str) -> None:
        """Keep the present values under a name. Raises InvalidRequest for one of our own."""
        name = " ".join(plain(name).split())
        if not name or name in PRESETS or len(name) > _LONGEST_NAME:
            raise InvalidRequest(
                f"Give the preset a name of its own, of up to {_LONGEST_NAME} characters."
            )
        shown = {key: value for key, value in self.values.items() if key in SHOWN}
        preset = shown | ({"system": system} if system else {})
        self._own = self._file.put(name, preset) if self._file else {**self._own, name: preset}

    def forget(self, name: str) -> None:
        """Forget a preset that was kept. Raises InvalidRequest for one of our own."""
        if name not in self.own:
            raise InvalidRequest("Only presets that were kept can be forgotten.")
        left = {other: preset for other, preset in self._own.items() if other != name}
        self._own = self._file.drop(name) if self._file else left


def _lowest(bound: Bound) -> float:
    """The least that a slider can be drawn to."""
    return bound.low + _STEP if bound.open_low else bound.low


def descriptions() -> list[dict[str, Any]]:
    """What a front end has to know of each control: its range and its default."""
    defaults = SamplingParams()
    return [
        {
            "name": name,
            "low": _lowest(BOUNDS[name]) if name in BOUNDS else None,
            "high": _SLIDER_ENDS.get(name, BOUNDS[name].high if name in BOUNDS else None),
            "default": msgspec.to_builtins(getattr(defaults, name)),
        }
        for name in SHOWN
    ]
