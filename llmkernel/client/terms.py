"""What holds for all requests of a client that asks for somebody else, as a gateway does."""

from __future__ import annotations

from typing import NamedTuple


class Terms(NamedTuple):
    """Fields of every Submit, under their names there."""

    cache_salt: str = ""
    max_prompt_tokens: int | None = None
    max_total_tokens: int | None = None


OWN = Terms()
"""Those of somebody who asks for themselves: none."""
