"""Every route refuses whoever may not come in; the table of routes says which there are."""

from __future__ import annotations

import http.client

import pytest

from llmkernel.gateway.table import all_routes
from tests.gateway.serving import TOKEN, Gate

ROUTES = [(route.method, route.path) for route in all_routes()]
CLOSED = [(route.method, route.path) for route in all_routes() if not route.open]
BEARER = {"Authorization": f"Bearer {TOKEN}"}


def ask(
    gate: Gate, method: str, path: str, headers: dict[str, str], body: bytes = b""
) -> http.client.HTTPResponse:
    """A request with exactly these headers and Content-Length."""
    connection = http.client.HTTPConnection("127.0.0.1", gate.port, timeout=10)
    path = path.replace("*}", "}").replace("{", "").replace("}", "")
    connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
    for name, value in ({"Host": f"127.0.0.1:{gate.port}"} | headers).items():
        if value is not None:
            connection.putheader(name, value)
    connection.putheader("Content-Length", str(len(body)))
    connection.endheaders(body)
    answer = connection.getresponse()
    answer.body = answer.read()
    connection.close()
    return answer


def test_only_liveness_is_open():
    assert {route.path for route in all_routes() if route.open} == {"/health", "/ping"}


@pytest.mark.parametrize(("method", "path"), CLOSED)
def test_a_route_refuses_who_has_no_token(scripted, method, path):
    json = {"Content-Type": "application/json"}
    for wrong in ({}, {"Authorization": f"Bearer {TOKEN.upper()}"}, {"X-Api-Key": TOKEN[:-1]}):
        answer = ask(scripted, method, path, json | wrong, b"{}" if method != "GET" else b"")
        assert answer.status == 401
        assert TOKEN.encode() not in answer.body
