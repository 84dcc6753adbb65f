"""Every route refuses whoever may not come in; the table of routes says which there are."""

from __future__ import annotations

import base64
import http.client
from typing import NamedTuple

import pytest

from llmkernel.gateway.table import all_routes
from tests.gateway.serving import TOKEN, Gate

ROUTES = [(route.method, route.path) for route in all_routes()]
CLOSED = [(route.method, route.path) for route in all_routes() if not route.open]
BEARER = {"Authorization": f"Bearer {TOKEN}"}
JSON = {"Content-Type": "application/json"}
FOREIGN_HOSTS = ("evil.example", "127.0.0.1.evil.example", "localhost.evil.example:80")
NO_HOSTS = ("localhost:1@evil.example", "", "[::1", "127.0.0.1/x", None)
"""Tornado itself refuses most of them, before there is a handler."""


class Answer(NamedTuple):
    status: int
    headers: http.client.HTTPMessage
    body: bytes


def ask(
    gate: Gate, method: str, path: str, *headers: tuple[str, str], host: str | None = "own"
) -> Answer:
    """A request with exactly these headers; a body of `{}` where the method has one."""
    body = b"{}" if method in ("POST", "PUT") else b""
    connection = http.client.HTTPConnection("127.0.0.1", gate.port, timeout=10)
    path = path.replace("*}", "}").replace("{", "").replace("}", "")
    connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
    if host is not None:
        connection.putheader("Host", f"127.0.0.1:{gate.port}" if host == "own" else host)
    for name, value in headers:
        connection.putheader(name, value)
    connection.putheader("Content-Length", str(len(body)))
    connection.endheaders(body)
    found = connection.getresponse()
    answer = Answer(found.status, found.headers, found.read())
    connection.close()
    return answer


def shut_out(gate: Gate, method: str, path: str, *headers: tuple[str, str], **more: object) -> bool:
    """Whether it is refused; tornado closes on what is no Host, with or without a word."""
    try:
        return ask(gate, method, path, *headers, **more).status in (400, 403)
    except ConnectionError:
        return True


def refused(answer: Answer, status: int) -> None:
    assert answer.status == status
    assert TOKEN.encode() not in answer.body
    assert "Access-Control-Allow-Origin" not in answer.headers
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["X-Request-Id"]


def test_only_liveness_is_open():
    assert {route.path for route in all_routes() if route.open} == {"/health", "/ping"}


@pytest.mark.parametrize(("method", "path"), CLOSED)
def test_a_route_refuses_who_has_no_token(scripted, method, path):
    for wrong in (
        [],
        [("Authorization", f"Bearer {TOKEN.upper()}")],
        [("Authorization", f"Bearer {TOKEN}x")],
        [("Authorization", TOKEN)],
        [("X-Api-Key", TOKEN[:-1])],
        [("Cookie", f"token={TOKEN}")],
        [("Authorization", "Basic " + base64.b64encode(b"x:y").decode())],
    ):
        refused(ask(scripted, method, path, *JSON.items(), *wrong), 401)
    refused(ask(scripted, method, f"{path}?token={TOKEN.replace(' ', '%20')}", *JSON.items()), 401)


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_a_route_refuses_a_foreign_host(scripted, method, path):
    known = (*JSON.items(), *BEARER.items())
    for host in FOREIGN_HOSTS:
        refused(ask(scripted, method, path, *known, host=host), 403)
    for host in NO_HOSTS:
        assert shut_out(scripted, method, path, *known, host=host)
    assert shut_out(scripted, method, path, *known, ("Host", "localhost"))


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_a_route_refuses_pages_of_other_sites(scripted, method, path):
    known = (*JSON.items(), *BEARER.items())
    for origin in (
        "https://evil.example",
        "null",
        "http://localhost:1",
        f"https://x:{scripted.port}",
    ):
        refused(ask(scripted, method, path, *known, ("Origin", origin)), 403)
        refused(ask(scripted, "OPTIONS", path, ("Origin", origin)), 403)
    refused(ask(scripted, method, path, *known, ("Sec-Fetch-Site", "cross-site")), 403)


def test_the_own_origin_and_its_names_come_in(scripted):
    for host in (f"127.0.0.1:{scripted.port}", f"localhost:{scripted.port}", "[::1]:80"):
        answer = ask(
            scripted, "GET", "/info", *BEARER.items(), ("Origin", f"http://{host}"), host=host
        )
        assert answer.status == 200
        assert "Access-Control-Allow-Origin" not in answer.headers


def test_the_token_comes_as_bearer_or_key_and_for_pages_as_password(scripted):
    basic = "Basic " + base64.b64encode(f"anybody:{TOKEN}".encode()).decode()
    assert ask(scripted, "GET", "/info", ("X-Api-Key", TOKEN)).status == 200
    assert (
        ask(scripted, "GET", "/", ("Authorization", basic), ("Accept", "text/html")).status == 200
    )
    assert ask(scripted, "POST", "/generate", *JSON.items(), ("Authorization", basic)).status == 401
    challenge = ask(scripted, "GET", "/", ("Accept", "text/html,*/*"))
    assert (challenge.status, challenge.headers["WWW-Authenticate"][:5]) == (401, "Basic")


def test_a_route_that_is_not_there_says_so_only_to_who_may_know(scripted):
    refused(ask(scripted, "GET", "/nowhere"), 401)
    refused(ask(scripted, "GET", "/nowhere", *BEARER.items()), 404)
    refused(ask(scripted, "GET", "/generate", *BEARER.items()), 405)
    refused(ask(scripted, "OPTIONS", "/generate"), 401)
    assert ask(scripted, "HEAD", "/info", *BEARER.items()).body == b""


def test_a_listed_site_may_call_and_its_browser_is_told(open_gate, scripted):
    gate = open_gate(allow_origins=("https://friend.example",), allow_hosts=("gate.example",))
    friend = ("Origin", "https://friend.example")
    preflight = ask(gate, "OPTIONS", "/generate", friend)
    assert (preflight.status, preflight.headers["Access-Control-Allow-Origin"]) == (204, friend[1])
    answer = ask(gate, "GET", "/info", friend, *BEARER.items(), host="gate.example:80")
    assert (answer.status, answer.headers["Access-Control-Allow-Origin"]) == (200, friend[1])
    assert "Access-Control-Allow-Credentials" not in answer.headers
    refused(ask(gate, "GET", "/info", ("Origin", "https://foe.example"), *BEARER.items()), 403)


def test_a_listed_site_may_send_the_headers_of_the_clients(open_gate, scripted):
    gate = open_gate(allow_origins=("https://friend.example",))
    friend = ("Origin", "https://friend.example")

    def allowed(wanted: str) -> str:
        question = ("Access-Control-Request-Headers", wanted)
        return ask(gate, "OPTIONS", "/v1/chat/completions", friend, question).headers[
            "Access-Control-Allow-Headers"
        ]

    usual = "authorization,content-type,x-stainless-lang,anthropic-version,x-cache-salt"
    assert allowed(usual) == usual
    assert allowed("x" + ", x" * 500) == allowed("a b; c") == "authorization, content-type"
    preflight = ask(gate, "OPTIONS", "/v1/responses/resp_1", friend)
    assert "DELETE" in preflight.headers["Access-Control-Allow-Methods"]
    foe = ("Origin", "https://foe.example")
    refused(ask(gate, "OPTIONS", "/v1/chat/completions", foe), 403)


def test_a_listed_site_may_read_what_went_wrong(open_gate, scripted):
    gate = open_gate(allow_origins=("https://friend.example",), limits={"payload_limit": 1})
    friend = ("Origin", "https://friend.example")
    known = (friend, *BEARER.items())
    answers = [
        (401, ask(gate, "POST", "/v1/chat/completions", friend, *JSON.items())),
        (404, ask(gate, "GET", "/nowhere", *known)),
        (405, ask(gate, "GET", "/generate", *known)),
        (413, ask(gate, "POST", "/generate", *known, *JSON.items())),
        (415, ask(open_gate(allow_origins=(friend[1],)), "POST", "/generate", *known)),
    ]
    for status, answer in answers:
        assert answer.status == status
        assert answer.headers["Access-Control-Allow-Origin"] == friend[1]
        assert answer.headers["Vary"] == "Origin"
        assert "x-request-id" in answer.headers["Access-Control-Expose-Headers"]


@pytest.mark.parametrize(
    "path", ["/generate", "/v1/chat/completions", "/v1/messages", "/api/chat", "/llmkernel/status"]
)
def test_a_wrong_token_is_told_from_a_missing_one(scripted, path):
    def said(*headers: tuple[str, str]) -> str:
        method = "GET" if path == "/llmkernel/status" else "POST"
        answer = ask(scripted, method, path, *JSON.items(), *headers)
        refused(answer, 401)
        return answer.body.decode()

    for missing in (said(), said(("Authorization", TOKEN)), said(("Authorization", "Bearer "))):
        assert "A token is needed: send it as `Authorization: Bearer TOKEN`." in missing
    for wrong in (said(("Authorization", "Bearer wrong")), said(("X-Api-Key", "wrong"))):
        assert "is not this gateway's" in wrong
        assert "llmkernel-gateway.token" in wrong
