"""Whether a running worker is what somebody asked for.

Asked for is every setting that differs from its default. One that the worker was
started with as "auto" can only be compared with what came out of it, once it is ready.
"""

from __future__ import annotations

from typing import Any

import msgspec

from llmkernel.config import WorkerConfig
from llmkernel.connection import Connection
from llmkernel.errors import ConfigurationConflict
from llmkernel.protocol import ModelInfo

_RESOLVED = {
    "revision": "revision",
    "quantization": "quantization",
    "dtype": "dtype",
    "device": "device",
    "context_length": "context_length",
    "kv_cache": "kv_cache_bytes",
}
"""Setting → field of ModelInfo that says what became of it."""


def asked_for(config: WorkerConfig) -> dict[str, Any]:
    """The model, and the settings that are not at their defaults."""
    default = WorkerConfig()
    values: dict[str, Any] = msgspec.to_builtins(config)
    asked = {key: value for key, value in values.items() if value != getattr(default, key)}
    return asked | {"model": config.model}


def check(asked: dict[str, Any], running: Connection) -> dict[str, Any]:
    """Compare with what the worker was started with; returns what only `check_resolved` can tell.

    Raises ConfigurationConflict that names the settings and both values.
    """
    default = WorkerConfig()
    other = {
        key: value
        for key, value in asked.items()
        if _meant(key, running.settings.get(key, value)) != _meant(key, value)
    }
    unsure = {
        key: value
        for key, value in other.items()
        if key in _RESOLVED and running.settings[key] == getattr(default, key)
    }
    _refuse(running, {key: running.settings[key] for key in other.keys() - unsure.keys()}, asked)
    return unsure


def check_resolved(unsure: dict[str, Any], running: Connection, info: ModelInfo | None) -> None:
    """Compare with what the loader made of it. Raises ConfigurationConflict."""
    if info is None:
        return
    became = {key: getattr(info, _RESOLVED[key]) for key in unsure}
    _refuse(
        running,
        {key: value for key, value in became.items() if not _fits(unsure[key], value)},
        unsure,
    )


def _meant(key: str, value: Any) -> Any:
    # no revision is the hub's main branch
    return "main" if key == "revision" and value is None else value


def _fits(asked: Any, became: Any) -> bool:
    # "cuda" is any of "cuda:0", ...
    if isinstance(asked, str):
        return asked == became or str(became).startswith(f"{asked}:")
    return bool(asked == became)


def _refuse(running: Connection, other: dict[str, Any], asked: dict[str, Any]) -> None:
    if other:
        listed = ", ".join(f"{key}={other[key]} (asked: {asked[key]})" for key in sorted(other))
        raise ConfigurationConflict(
            f"The worker {running.name!r} already runs with {listed}. Give the new one another "
            f"name, or stop the running one first: llmkernel stop {running.name} "
            f"(in a notebook: %llm stop {running.name})",
            settings=sorted(other),
        )
