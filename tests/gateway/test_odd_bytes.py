"""Requests that no client library would send: over a socket of one's own."""

from __future__ import annotations

import logging
import socket

import pytest

from tests.conftest import wait_until
from tests.gateway.conftest import ENDLESS
from tests.gateway.serving import TOKEN, Gate, rest_of

AUTHORIZED = f"Authorization: Bearer {TOKEN}\r\nContent-Type: application/json\r\n"


def sent(gate: Gate, first: str, headers: str = "", body: str = "") -> socket.socket:
    """A connection on which this request was sent."""
    sock = socket.create_connection(("127.0.0.1", gate.port), timeout=10)
    sock.sendall(f"{first} HTTP/1.1\r\nHost: 127.0.0.1\r\n{headers}\r\n{body}".encode())
    return sock


@pytest.mark.parametrize("length", ["9" * 21, "9" * 5000, "0" * 5000 + "9"])
def test_a_length_of_many_digits_is_no_fault_of_ours(scripted, length):
    answer = rest_of(sent(scripted, "POST /generate", f"{AUTHORIZED}Content-Length: {length}\r\n"))
    assert answer.split(b" ", 2)[1] in (b"400", b"413")


def test_a_method_that_is_none_is_not_repeated_in_the_log(scripted, caplog):
    with caplog.at_level(logging.INFO, "llmkernel.gateway"):
        answer = rest_of(sent(scripted, f"{'F' * 5000} /generate", AUTHORIZED))
        assert answer.split(b" ", 2)[1] == b"405"
        wait_until(lambda: caplog.records, seconds=5, what="the log")
    assert caplog.records[-1].__dict__["facts"]["method"] == "other"


def test_a_method_that_is_none_is_looked_at_as_any_other(scripted):
    for headers, status in (
        ("", b"401"),
        (f"{AUTHORIZED}Origin: https://evil.example\r\n", b"403"),
        (AUTHORIZED, b"405"),
    ):
        answer = rest_of(sent(scripted, "BREW /generate", headers))
        assert answer.split(b" ", 2)[1] == status
    assert b"Allow: POST" in answer
    assert b"Use POST here." in answer


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("/v1/models/%ff", b"does not run here"),
        ("/v2/models/a%c3%28/ready", b"does not run here"),
        ("/v1/responses/%ff", b"There is no such response"),
    ],
)
def test_a_name_in_a_path_that_is_no_text_is_an_unknown_one(scripted, path, says):
    assert rest_of(sent(scripted, f"GET {path}")).split(b" ", 2)[1] == b"401"
    answer = rest_of(sent(scripted, f"GET {path}", f"{AUTHORIZED}Connection: close\r\n"))
    assert answer.split(b" ", 2)[1] == b"404"
    assert says in answer


@pytest.mark.parametrize("path", ["/generate", "/v1/chat/completions", "/api/chat", "/v1/messages"])
def test_a_name_as_long_as_a_body_is_not_sent_back(scripted, path):
    for body in ({"model": "m", "f" * 500_000: 1}, {"model": "m" * 500_000}):
        answer = scripted.post(path, body | {"inputs": "x", "parameters": {"f" * 500_000: 1}})
        assert answer.status_code in (400, 404, 422)
        assert len(answer.content) < 2000


@pytest.mark.parametrize("body", ["", " \n"])
@pytest.mark.parametrize("path", ["/generate", "/v1/chat/completions", "/api/chat", "/v1/messages"])
def test_an_empty_body_is_told_as_that(scripted, path, body):
    answer = scripted.http.post(path, content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400
    assert "The body is empty." in answer.text


@pytest.mark.parametrize("path", ["/generate", "/generate_stream"])
def test_who_closes_the_sending_half_has_left(worker, open_gate, path):
    worker("endless", ENDLESS)
    gate = open_gate(workers=("endless",))
    body = '{"inputs": "go on", "parameters": {"max_new_tokens": 15000}}'
    sock = sent(gate, f"POST {path}", f"{AUTHORIZED}Content-Length: {len(body)}\r\n", body)
    wait_until(lambda: gate.status("endless").load.running, seconds=10, what="the request to run")
    sock.shutdown(socket.SHUT_WR)
    rest_of(sock)
    wait_until(lambda: not gate.status("endless").load.running, seconds=5, what="its end")
    recent = gate.server.gateway.recent.requests  # the worker knows first
    wait_until(lambda: recent, seconds=5, what="its record")
    assert recent[0].outcome == "dropped"
