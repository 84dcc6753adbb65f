"""What a route is. The table of all of them is in table.py, and nothing else adds any."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llmkernel.gateway.dialects import OWN, Dialect

if TYPE_CHECKING:
    from llmkernel.gateway.exchange import Exchange

Act = Callable[["Exchange"], Awaitable[None]]
_PLACE = re.compile(r"\\\{(\w+)(\\\*)?\\\}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Route:
    """One method of one path, and everything the gateway has to know of it.

    `{name}` in a path stands for one segment, `{name*}` for one or more.
    """

    method: str
    path: str
    act: Act
    summary: str
    dialect: Dialect = OWN
    body: Any = None
    """The msgspec type that `exchange.read` is asked for; None takes no body."""
    example: Mapping[str, Any] | None = None
    """A body that any gateway answers, for the OpenAPI document."""
    answer: Any = None
    """The msgspec type of the answer, for the OpenAPI document; None is no JSON."""
    streams: str = ""
    """Content type of its streamed answer, where it has one."""
    event: Any = None
    """The msgspec type of what a stream consists of."""
    open: bool = False
    """Answers without a token. For liveness alone: say nothing but up or down."""
    generates: bool = False
    """Has a model write: counted by TGI's metrics, shown on the status page."""
    asks: bool = False
    """Asks a worker about text alone: for tokens, or what a template makes of it."""
    any_content_type: bool = False
    """Takes a body that does not say it is JSON, for clients that send no content type."""
    hidden: bool = False
    """Left out of the OpenAPI document: pages."""

    @property
    def pattern(self) -> str:
        """The path as a regular expression with named groups."""
        return _PLACE.sub(_group, re.escape(self.path)) + "$"

    @property
    def permit(self) -> bool:
        """Whether it counts against max_concurrent_requests; then refused while the gateway stops."""
        return self.generates or self.asks

    @property
    def openapi_path(self) -> str:
        """The path as OpenAPI writes it."""
        return self.path.replace("*}", "}")


def _group(match: re.Match[str]) -> str:
    return f"(?P<{match[1]}>{'.+' if match[2] else '[^/]+'})"
