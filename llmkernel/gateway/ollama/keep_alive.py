"""`keep_alive`: how long a model stays after its last request."""

from __future__ import annotations

import math
import re

from llmkernel.errors import InvalidRequest
from llmkernel.gateway.models import Models
from llmkernel.gateway.replica import Replica

KeepAlive = float | str | None
_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?|\.[0-9]+)(h|ms|us|ns|m|s)")
_MOST_CHARACTERS = 40
_SECONDS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}


def seconds(value: float | str) -> float | None:
    """Seconds from a number of them or a duration like "1h30m"; None is for ever.

    Raises InvalidRequest.
    """
    found = value if isinstance(value, (int, float)) else _parse(value)
    return None if found < 0 else found


def apply(models: Models, replica: Replica, value: KeepAlive) -> None:
    """Let the model go so long after its last request.

    A worker that somebody else started stays as long as that somebody wants it.
    """
    if value is not None:
        models.keep(replica.model, seconds(value))


def unloads(replica: Replica, value: KeepAlive) -> bool:
    """Whether a request without a question was one to unload. Raises InvalidRequest.

    That is where the worker is not the gateway's to end.
    """
    if value is None or seconds(value) != 0:
        return False
    if replica.keep != 0 and not replica.leaving:
        raise InvalidRequest(
            "keep_alive 0 would end a worker that this gateway did not start. End it with "
            "`llmkernel stop`.",
            field="keep_alive",
        )
    return True


def _parse(value: str) -> float:
    text = value.strip().removeprefix("+")
    sign = -1.0 if text.startswith("-") else 1.0
    text = text.removeprefix("-")
    if re.fullmatch(r"[0-9]{1,12}", text):
        return sign * float(text)
    # what is too long is not looked at: each of a row of digits would begin a search to its end
    parts = _PART.findall(text) if len(text) <= _MOST_CHARACTERS else []
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise InvalidRequest(
            'keep_alive must be seconds or a duration such as "5m"; -1 keeps it for ever.',
            field="keep_alive",
        )
    total = math.fsum(float(number) * _SECONDS[unit] for number, unit in parts)
    return sign * total
