"""Who may speak to a gateway of its own: Host, Origin and token, in that order, on every route."""

from __future__ import annotations

import base64
import binascii
import ipaddress
import re
from urllib.parse import urlsplit

from tornado.httputil import HTTPServerRequest

from llmkernel.gateway.credentials import Token
from llmkernel.gateway.faults import Refusal
from llmkernel.gateway.routes import Route
from llmkernel.gateway.settings import LOOPBACK, Settings

_HOST = re.compile(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+)(?::\d{1,5})?")
_MISSING = "A token is needed: send it as `Authorization: Bearer TOKEN`."
_WRONG = "The token that was sent is not this gateway's."
_WHERE = (
    "`llmkernel serve` said at its start where the token is: in the file llmkernel-gateway.token of "
    "Jupyter's runtime folder, or in LLMKERNEL_GATEWAY_TOKEN."
)
PRINCIPAL = "token"
"""Whoever has the token: there is one."""


class Guard:
    """The checks of a stand-alone gateway. Raises Refusal; says nothing about what exists."""

    def __init__(self, settings: Settings, token: Token) -> None:
        own = () if settings.host in ("", "0.0.0.0", "::") else (settings.host,)  # noqa: S104
        names = (*LOOPBACK, *own, *settings.allow_hosts)
        self._hosts = {name.strip("[]").lower() for name in names}
        self._origins = {origin.rstrip("/").lower() for origin in settings.allow_origins}
        self._token = token

    def check(self, request: HTTPServerRequest, route: Route | None) -> str:
        """The principal of a request that may go on. Raises Refusal otherwise."""
        self.check_host(request)
        self.check_origin(request)
        if route is not None and route.open:
            return ""
        offers = _offers(request)
        if not any(self._token.matches(offer) for offer in offers):
            raise Refusal(
                "unauthorized",
                f"{_WRONG if any(offers) else _MISSING} {_WHERE}",
                headers={"WWW-Authenticate": _challenge(request)},
            )
        return PRINCIPAL

    def check_host(self, request: HTTPServerRequest) -> None:
        """Refuse names that somebody else's domain could have brought here."""
        given = request.headers.get_list("Host")
        match = _HOST.fullmatch(given[0]) if len(given) == 1 else None
        if match is None or not self._known(match[1].strip("[]").lower()):
            raise Refusal("forbidden", "This gateway is not reached by that Host name.")

    def check_origin(self, request: HTTPServerRequest) -> None:
        """Refuse pages of other sites. Programs send no Origin."""
        given = request.headers.get_list("Origin")
        if given and not (len(given) == 1 and self._same(given[0], request)):
            if len(given) == 1 and self.listed(given[0]):
                return
            raise Refusal("forbidden", "Pages of that Origin may not use this gateway.")
        foreign = request.headers.get("Sec-Fetch-Site") == "cross-site"
        if not given and foreign and request.headers.get("Sec-Fetch-Mode") != "navigate":
            raise Refusal("forbidden", "Pages of other sites may not use this gateway.")

    def listed(self, origin: str) -> bool:
        """Whether pages of this origin get CORS headers."""
        return origin.lower() in self._origins

    def _known(self, host: str) -> bool:
        if host in self._hosts:
            return True
        try:
            return ipaddress.ip_address(host).is_loopback
        except ValueError:
            return False

    def _same(self, origin: str, request: HTTPServerRequest) -> bool:
        try:
            parts = urlsplit(origin.lower())
        except ValueError:
            return False
        return parts.scheme in ("http", "https") and parts.netloc == request.host.lower()


def _offers(request: HTTPServerRequest) -> list[str]:
    """The tokens a request brings: as bearer, as x-api-key, and for pages as a password."""
    scheme, _, value = request.headers.get("Authorization", "").partition(" ")
    offers = [request.headers["X-Api-Key"]] if "X-Api-Key" in request.headers else []
    if scheme.lower() == "bearer":
        offers.append(value.strip())
    elif scheme.lower() == "basic" and request.method in ("GET", "HEAD"):
        # a browser has no other way to bring a token when it opens a page
        offers += _password(value)
    return offers


def _password(value: str) -> list[str]:
    try:
        return [base64.b64decode(value, validate=True).decode().partition(":")[2]]
    except (binascii.Error, UnicodeDecodeError):
        return []


def _challenge(request: HTTPServerRequest) -> str:
    browser = "text/html" in request.headers.get("Accept", "")
    return 'Basic realm="llmkernel: any name, and the token"' if browser else "Bearer"
