"""Whose prompts may share cached tokens, and how long prompts and answers may be."""

from __future__ import annotations

from typing import NamedTuple

from llmkernel.client import AsyncClient
from llmkernel.client.faces import on_terms
from llmkernel.client.terms import Terms
from llmkernel.gateway.exchange import Exchange
from llmkernel.gateway.guard import PRINCIPAL
from llmkernel.gateway.replica import Replica

SALT_HEADER = "X-Cache-Salt"


class Lengths(NamedTuple):
    """Tokens that a prompt, and it with its answer, may have; None is what the worker takes."""

    prompt: int | None = None
    total: int | None = None


def client_for(
    exchange: Exchange,
    replica: Replica,
    salt: str | None = None,
    *,
    lengths: Lengths | None = None,
) -> AsyncClient:
    """The client that a request's questions go through: its terms hold for all of them.

    `salt` is what its body says, where its dialect has a field for it. Users that Jupyter
    tells apart never share, whatever they send. `lengths` are for a
    request whose own differ from the gateway's limits.
    """
    limits = exchange.gateway.settings.limits
    chosen = lengths or Lengths(limits.max_input_tokens, limits.max_total_tokens)
    wanted = salt or exchange.header(SALT_HEADER)
    user = "" if exchange.principal == PRINCIPAL else exchange.principal
    # the length keeps the two apart: nobody can write another's name into a salt of their own
    mixed = f"{len(user)}:{user}{wanted}" if user or wanted else ""
    return on_terms(
        replica.client,
        Terms(
            cache_salt=mixed,
            max_prompt_tokens=chosen.prompt,
            max_total_tokens=chosen.total,
        ),
    )
