"""GET /v1/responses/{id}/input_items: what a response answered, turn by turn."""

from __future__ import annotations

from typing import Literal

import msgspec

from llmkernel.errors import InvalidRequest
from llmkernel.gateway.exchange import Exchange
from llmkernel.gateway.openai.response_store import Kept
from llmkernel.protocol import ChatMessage

_MOST = 100
_USUAL = 20


class ItemText(msgspec.Struct):
    """The text of a turn: `output_text` where a model wrote it."""

    type: Literal["input_text", "output_text"]
    text: str
    annotations: list[str] | msgspec.UnsetType = msgspec.UNSET
    """None are made, but clients expect them in an output_text."""


class Item(msgspec.Struct):
    """A turn. Its id holds as long as the response does."""

    id: str
    role: str
    content: list[ItemText]
    status: Literal["completed"] = "completed"
    type: Literal["message"] = "message"


class ItemList(msgspec.Struct, kw_only=True):
    """A page of them."""

    object: Literal["list"] = "list"
    data: list[Item]
    first_id: str | None
    last_id: str | None
    has_more: bool


def page(exchange: Exchange, kept: Kept) -> ItemList:
    """The page that the query asks for: `limit`, `order` and `after`. Raises InvalidRequest."""
    limit, order = exchange.query("limit", str(_USUAL)), exchange.query("order", "desc")
    if not (limit.isascii() and limit.isdecimal() and 1 <= int(limit[:9]) <= _MOST):
        raise InvalidRequest(f"limit must be from 1 to {_MOST}.", field="limit")
    if order not in ("asc", "desc"):
        raise InvalidRequest("order must be asc or desc.", field="order")
    found = items(kept)
    if order == "desc":
        found.reverse()
    after = exchange.query("after")
    if after:
        ids = [item.id for item in found]
        if after not in ids:
            raise InvalidRequest("after names no item of this response.", field="after")
        found = found[ids.index(after) + 1 :]
    shown = found[: int(limit)]
    return ItemList(
        data=shown,
        first_id=shown[0].id if shown else None,
        last_id=shown[-1].id if shown else None,
        has_more=len(found) > len(shown),
    )


def items(kept: Kept) -> list[Item]:
    """All turns that were read, oldest first: those of the responses before it, too."""
    turns = kept.turns[:-1]
    if kept.begun:
        turns.append(ChatMessage(role="assistant", content=kept.begun))
    stem = "msg_" + kept.response.id.removeprefix("resp_")
    return [_item(f"{stem}_{number}", turn) for number, turn in enumerate(turns)]


def _item(name: str, turn: ChatMessage) -> Item:
    if turn.role == "assistant":
        return Item(name, turn.role, [ItemText("output_text", turn.content, [])])
    return Item(name, turn.role, [ItemText("input_text", turn.content)])
