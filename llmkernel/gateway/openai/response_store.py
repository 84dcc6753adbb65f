"""Responses that can be gone on after: kept in memory, the least recently used let go first."""

from __future__ import annotations

from collections import OrderedDict

import msgspec

from llmkernel.gateway.openai.response import Response
from llmkernel.protocol import ChatMessage

MOST = 512
MOST_BYTES = 32 * 2**20


class Kept(msgspec.Struct, frozen=True):
    """A response and the whole conversation that led to it, its own turn included."""

    response: Response
    turns: list[ChatMessage]
    size: int
    """Bytes of text, roughly."""
    begun: str = ""
    """What the request had written of the response's own turn."""


class ResponseStore:
    """At most `most` responses of at most `most_bytes` in all, each seen by its owner alone."""

    def __init__(self, most: int = MOST, most_bytes: int = MOST_BYTES) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self._kept: OrderedDict[tuple[str, str], Kept] = OrderedDict()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._kept)

    def put(
        self, owner: str, response: Response, turns: list[ChatMessage], begun: str = ""
    ) -> None:
        """Keep a response; others may have to go."""
        size = len(msgspec.msgpack.encode((response, turns, begun)))
        if size > self._most_bytes:
            return
        self.remove(owner, response.id)
        self._kept[owner, response.id] = Kept(response, turns, size, begun)
        self._bytes += size
        while len(self._kept) > self._most or self._bytes > self._most_bytes:
            _, oldest = self._kept.popitem(last=False)
            self._bytes -= oldest.size

    def get(self, owner: str, response_id: str) -> Kept | None:
        """A response of `owner`, if it is still there."""
        kept = self._kept.get((owner, response_id))
        if kept is not None:
            self._kept.move_to_end((owner, response_id))
        return kept

    def remove(self, owner: str, response_id: str) -> bool:
        """Let a response go; whether it was there."""
        kept = self._kept.pop((owner, response_id), None)
        if kept is None:
            return False
        self._bytes -= kept.size
        return True
