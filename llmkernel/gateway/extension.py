"""The gateway inside Jupyter Server: the same routes under /llmkernel/, Jupyter's own guard.

Jupyter decides who a user is, checks Host, Origin and XSRF, and asks its Authorizer
for every route (resource "llmkernel"). No route is open, and there is no token of our own.
Settings come from `c.LLMKernelGateway` in Jupyter's configuration, under the names of
the gateway's Settings.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlsplit

import msgspec
from jupyter_core.utils import ensure_async
from jupyter_server.auth.utils import HTTP_METHOD_TO_AUTH_ACTION
from jupyter_server.base.handlers import JupyterHandler
from jupyter_server.serverapp import ServerApp
from tornado.web import HTTPError, RedirectHandler

from llmkernel.config import DEMO_MODEL
from llmkernel.errors import InvalidRequest
from llmkernel.gateway.faults import Refusal
from llmkernel.gateway.gateway import Gateway
from llmkernel.gateway.guard import PRINCIPAL
from llmkernel.gateway.handler import Serving
from llmkernel.gateway.logs import write_to
from llmkernel.gateway.server import rules
from llmkernel.gateway.settings import Settings

FOLDER = "/llmkernel"
RESOURCE = "llmkernel"
_FORBIDDEN = (
    "Jupyter does not let this request in. It wants its token, as `Authorization: Bearer TOKEN`, or from "
    "a page that is logged in the header X-XSRFToken, and a Host name that it knows."
)


class JupyterServing(Serving, JupyterHandler):  # type: ignore[misc]  # its prepare is called by admit
    """A route inside Jupyter Server."""

    auth_resource = RESOURCE

    @property
    def place(self) -> str:
        """The path below the folder."""
        return str(self.request.path).removeprefix(self.base_url.rstrip("/") + FOLDER)

    async def admit(self) -> str:
        """The user, if Jupyter knows one and its Authorizer lets them."""
        try:
            await JupyterHandler.prepare(self)
        except HTTPError as error:
            raise (
                Refusal("forbidden", _FORBIDDEN) if error.status_code == 403 else error
            ) from None
        if self._finished:  # sent to the login page
            return ""
        user = self.current_user
        if user is None:
            self._ask_to_log_in()
            return ""
        if not self._origin_allowed():
            raise Refusal("forbidden", "Pages of that Origin may not use this server.")
        action = HTTP_METHOD_TO_AUTH_ACTION.get(str(self.request.method), "write")
        if not await ensure_async(self.authorizer.is_authorized(self, user, action, RESOURCE)):
            raise Refusal("forbidden", f"You may not {action} {RESOURCE} on this server.")
        await self.gateway.awake()
        return self._principal(str(user.username))

    def _principal(self, username: str) -> str:
        """Who asks. To those who bring the token alone Jupyter gives a new name each time."""
        provider = self.identity_provider
        if self.token_authenticated or not provider.auth_enabled:
            return PRINCIPAL
        return username

    def _origin_allowed(self) -> bool:
        """Jupyter's lists, applied to those too whom it lets pass for their token."""
        origin = self.request.headers.get("Origin", "").lower()
        if not origin or urlsplit(origin).netloc == self.request.host.lower():
            return True
        if self.allow_origin:
            return self.allow_origin in ("*", origin)
        pattern = self.allow_origin_pat
        return bool(pattern and re.fullmatch(pattern, origin))

    def _ask_to_log_in(self) -> None:
        if self.request.method == "GET" and "text/html" in self.request.headers.get("Accept", ""):
            self.redirect(self.get_login_url())
            return
        raise Refusal("unauthorized", "Log in to Jupyter, or send its token.")


def settings_of(config: Any) -> Settings:
    """The settings in a part of Jupyter's configuration. Raises InvalidRequest naming a wrong one."""
    values = {"allow_models": (DEMO_MODEL,), **dict(config)}
    try:
        return msgspec.convert(values, Settings)
    except msgspec.ValidationError as error:
        raise InvalidRequest(f"c.LLMKernelGateway: {error}") from None


def _jupyter_server_extension_points() -> list[dict[str, str]]:
    """What Jupyter Server asks a module for."""
    return [{"module": "llmkernel.gateway.extension"}]


def _load_jupyter_server_extension(server: ServerApp) -> None:
    """Put the routes into a server. Nothing is looked for or loaded before the first request."""
    write_to(as_json=False, level="WARNING")  # each request has a line of Jupyter's own
    gateway = Gateway(settings_of(server.config.get("LLMKernelGateway", {})))
    folder = server.web_app.settings["base_url"].rstrip("/") + FOLDER
    base = re.escape(folder)
    # what is no route is told so in the words of its dialect, and not by a page of Jupyter's
    rest = (f"{base}/.*", JupyterServing, {"gateway": gateway, "routes": {}})
    bare = (f"{base}$", RedirectHandler, {"url": f"{folder}/"})
    added = [*rules(gateway, JupyterServing, base), rest, bare]
    server.web_app.add_handlers(".*$", added)  # type: ignore[no-untyped-call]
    server.log.info("llmkernel serves its workers under %s/", FOLDER)
