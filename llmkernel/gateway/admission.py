"""How much may be in flight: permits that are there or not, without a queue to wait in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from llmkernel.errors import Draining, Overloaded


class Permits:
    """Counts requests in flight. `closed` refuses new ones while the gateway stops."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.taken = 0
        self.closed = False

    @contextmanager
    def take(self, count: int = 1) -> Iterator[None]:
        """Hold `count` permits. Raises Overloaded or Draining at once where there are none."""
        if self.closed:
            raise Draining("The gateway is stopping and takes no new requests.")
        if self.taken + count > self.most:
            raise Overloaded(
                f"{self.taken} requests are in flight, and {self.most} may be.",
                limit=self.most,
            )
        self.taken += count
        try:
            yield
        finally:
            self.taken -= count
