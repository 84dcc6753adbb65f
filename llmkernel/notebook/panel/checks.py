"""Values that a person gives in Python: the right kind, or a refusal that names them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from llmkernel.errors import InvalidRequest
from llmkernel.notebook.untrusted import whole


def text(value: Any, what: str) -> str:
    """A text, without halves of surrogate pairs. Raises InvalidRequest for anything else."""
    if not isinstance(value, str):
        raise InvalidRequest(f"{what} must be text, not {_kind(value)}.")
    return str(whole(value))


def text_or_none(value: Any, what: str) -> str:
    """The same, where None stands for no text."""
    return "" if value is None else text(value, what)


def mapping(value: Any, what: str) -> Mapping[str, Any]:
    """Values by name. Raises InvalidRequest for anything else."""
    if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
        got = "one with other names" if isinstance(value, Mapping) else _kind(value)
        raise InvalidRequest(f"{what} must be a dict with names of text, not {got}.")
    return value


def several(value: Any, what: str) -> list[Any]:
    """The items of a list or of anything like it. Raises InvalidRequest for anything else."""
    if not isinstance(value, Iterable):
        raise InvalidRequest(f"{what} must be a list of messages, not {_kind(value)}.")
    return list(value)


def worker_name(worker: Any) -> str | None:
    """The name of a worker that is given by it or as a Client. Raises InvalidRequest."""
    name = worker if isinstance(worker, str | None) else getattr(worker, "name", None)
    if not isinstance(name, str | None) or (name is None and worker is not None):
        raise InvalidRequest(
            f"The worker must be the name of one, or a Client, not {_kind(worker)}."
        )
    return name


def _kind(value: Any) -> str:
    return "None" if value is None else type(value).__name__
