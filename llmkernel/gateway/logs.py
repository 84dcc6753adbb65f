"""What a gateway writes: one line of JSON for each request, never a prompt, a text or a token."""

from __future__ import annotations

import logging
import sys
import traceback
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

import msgspec

from llmkernel.gateway.record import Record

_NAME = "llmkernel.gateway"


class GatewayLog:
    """The log of one gateway, as facts; how they look is the handler's matter."""

    def __init__(self) -> None:
        self._log = logging.getLogger(_NAME)

    def event(self, event: str, **facts: Any) -> None:
        """Something that happens to the gateway itself."""
        self._log.info(event, extra={"facts": facts})

    def request(self, record: Record) -> None:
        """A request that is over."""
        facts = {
            "id": record.id,
            "method": record.method,
            "route": record.route,
            "status": record.status,
            "outcome": record.outcome,
            "seconds": round(record.seconds, 6),
        }
        if record.model:
            facts |= {
                "model": record.model,
                "prompt_tokens": record.prompt_tokens,
                "generated_tokens": record.generated_tokens,
                "queue_seconds": round(record.queue, 6),
            }
        self._log.info("request", extra={"facts": facts})

    def unexpected(self, record: Record, error: BaseException) -> None:
        """A fault of ours: where it happened. Its words are left out, they may hold a prompt."""
        frames = [
            f"{Path(frame.filename).name}:{frame.lineno} {frame.name}"
            for frame in traceback.extract_tb(error.__traceback__)
        ]
        facts = {"id": record.id, "route": record.route, "error": type(error).__name__}
        self._log.error("unexpected", extra={"facts": facts | {"at": frames}})


class JsonLines(logging.Formatter):
    """A record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """Time, level, what happened, and its facts."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **getattr(record, "facts", {}),
        }
        return msgspec.json.encode(line).decode()


class PlainLines(logging.Formatter):
    """A record as words for a person at a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        """Time, what happened, and its facts as name=value."""
        when = datetime.fromtimestamp(record.created, UTC).astimezone().strftime("%H:%M:%S")
        facts = " ".join(f"{key}={value}" for key, value in getattr(record, "facts", {}).items())
        return f"{when} {record.getMessage()} {facts}".rstrip()


def write_to(stream: IO[str] | None = None, *, as_json: bool, level: str = "INFO") -> None:
    """Have the log of this process's gateway written to `stream`."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonLines() if as_json else PlainLines())
    log = logging.getLogger(_NAME)
    log.handlers[:] = [handler]
    log.setLevel(level)
    log.propagate = False


def quiet_tornado() -> None:
    """Leave tornado's own lines out, in a process that is the gateway's alone."""
    # tornado words what it read of a malformed request: not for a log without texts
    for name in ("tornado.access", "tornado.application", "tornado.general"):
        logging.getLogger(name).handlers[:] = [logging.NullHandler()]
        logging.getLogger(name).propagate = False
