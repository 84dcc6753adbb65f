"""What a gateway is started with: one frozen object from the CLI, Jupyter and tests alike."""

from __future__ import annotations

import ipaddress
import math
import re
from collections.abc import Callable
from typing import Any, Literal

import msgspec

from llmkernel.config import WorkerConfig
from llmkernel.errors import InvalidRequest
from llmkernel.params import BOUNDS, MAX_STOPS

MAX_BODY_BYTES = 2_000_000
MAX_HEADER_BYTES = 64 * 1024
LOOPBACK = ("localhost", "127.0.0.1", "::1")
_MOST = {
    "max_best_of": int(BOUNDS["best_of"].high),
    "max_stop_sequences": MAX_STOPS,
    "max_top_n_tokens": int(BOUNDS["logprobs"].high),
}
"""What a worker takes: a limit above would only put off the refusal, in other words."""
_NAME = re.compile(r"[A-Za-z0-9._-]+")
_ORIGIN = re.compile(
    r"[A-Za-z][A-Za-z0-9+.-]*://(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::\d{1,5})?/?"
)
_COLLECTOR = re.compile(r"https?://(?:[^\s/?#\[\]]+|\[[0-9A-Fa-f:.]+\](?::\d{1,5})?)(?:[/?#]\S*)?")
_SECONDS = ("unload_after", "idle_seconds", "write_seconds", "keep_alive_seconds", "drain_seconds")


class Limits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one request may ask for, under the names that Text Generation Inference gave them."""

    max_concurrent_requests: int = 128
    """Requests in flight; one more is refused at once."""
    max_best_of: int = 2
    max_stop_sequences: int = 4
    max_top_n_tokens: int = 5
    max_client_batch_size: int = 4
    max_input_tokens: int | None = None
    """None is what the model takes."""
    max_total_tokens: int | None = None
    """None is the context length of the model."""
    payload_limit: int = MAX_BODY_BYTES
    """Bytes of a request's body."""

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if value is not None and value < (0 if name == "max_top_n_tokens" else 1):
                raise InvalidRequest(f"{name} must be at least 1, and was {value}.", field=name)
        for name, highest in _MOST.items():
            value = getattr(self, name)
            if value > highest:
                raise InvalidRequest(
                    f"{name} must be at most {highest}, which is what a worker takes, and was "
                    f"{value}.",
                    field=name,
                )
        longest, most = self.max_input_tokens, self.max_total_tokens
        if longest is not None and most is not None and longest >= most:
            raise InvalidRequest(
                f"max_input_tokens ({longest}) must be below max_total_tokens ({most}).",
                field="max_input_tokens",
            )


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The settings of one gateway."""

    host: str = "127.0.0.1"
    port: int = 8080
    """0 takes any free one."""
    allow_hosts: tuple[str, ...] = ()
    """Names that clients may reach it by, beside the loopback ones and `host`."""
    allow_origins: tuple[str, ...] = ()
    """Origins of other sites whose pages may call it; they get CORS headers."""
    workers: tuple[str, ...] = ()
    """Names of the workers to serve; empty is all that run."""
    allow_models: tuple[str, ...] = ()
    """Models that a request may have loaded by naming them."""
    load_settings: dict[str, Any] = {}
    """Settings of WorkerConfig for workers that the gateway starts."""
    unload_after: float | None = None
    """Seconds without work after which a worker that the gateway started is stopped."""
    limits: Limits = Limits()
    tgi_compat: Literal["strict", "plain"] = "strict"
    """strict keeps TGI's habits that clients depend on; plain leaves them."""
    max_connections: int = 1024
    idle_seconds: float = 60.0
    """How long a connection may be silent between requests, or take over its headers."""
    write_seconds: float = 30.0
    """How long a reader may take nothing of an answer before it is cut off."""
    keep_alive_seconds: float = 15.0
    """A stream that has nothing to say sends a comment this often."""
    otlp_endpoint: str | None = None
    """URL of an OpenTelemetry collector that gets the traces over HTTP; needs the extra `otel`.

    They go to /v1/traces there, or to the URL's own path where it has one.
    """
    otlp_service_name: str = "llmkernel.gateway"
    drain_seconds: float = 30.0
    """How long a stop waits for what is in flight."""

    def __post_init__(self) -> None:
        for name in _SECONDS:
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value >= 0):
                raise InvalidRequest(
                    f"{name} must be a number of seconds, and was {value}.", field=name
                )
        if self.otlp_endpoint is not None and not _COLLECTOR.fullmatch(self.otlp_endpoint):
            raise InvalidRequest(
                "otlp_endpoint must be the address of a collector that takes OTLP over HTTP, such "
                f"as http://127.0.0.1:4318, and was {self.otlp_endpoint!r}.",
                field="otlp_endpoint",
            )
        checks: dict[str, Callable[[str], str]] = {
            "allow_models": _wrong_model,
            "allow_hosts": _wrong_host,
            "allow_origins": _wrong_origin,
        }
        for name, check in checks.items():
            for value in getattr(self, name):
                wrong = check(value)
                if wrong:
                    raise InvalidRequest(f"{name} has {value!r}. {wrong}", field=name)
        WorkerConfig.build(**self.load_settings)  # now, not when the first model is loaded


def _wrong_model(value: str) -> str:
    return "" if value.strip() else "Name a model: the id at its hub, a folder, or demo."


def _wrong_host(value: str) -> str:
    """Why a Host header can never be this one."""
    try:
        ipaddress.ip_address(value.strip("[]"))
    except ValueError:
        if not _NAME.fullmatch(value):
            return "Give a name alone, such as models.example, without a scheme, port or wildcard."
    return ""


def _wrong_origin(value: str) -> str:
    """Why a browser can never send this as an Origin."""
    if value == "null" or _ORIGIN.fullmatch(value):
        return ""
    return (
        "Give each site as its browser writes it, such as https://app.example or "
        "http://localhost:3000: there are no wildcards."
    )
