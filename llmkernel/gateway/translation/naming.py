"""Ids that answers get, and when they were made."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime
from typing import NamedTuple


class Head(NamedTuple):
    """What every part of one answer repeats."""

    id: str
    model: str
    created: int
    """Seconds since 1970."""


def new_id(prefix: str) -> str:
    """An id that nobody else has, such as "chatcmpl-…"."""
    return prefix + secrets.token_hex(12)


def new_head(prefix: str, model: str) -> Head:
    """The head of an answer that begins now."""
    return Head(new_id(prefix), model, int(datetime.now(UTC).timestamp()))
