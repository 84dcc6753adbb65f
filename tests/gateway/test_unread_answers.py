"""An answer that is whole and that its client does not read."""

from __future__ import annotations

import re
import socket
import time

from tests.conftest import wait_until
from tests.gateway.serving import TOKEN, Gate

BODY = b'{"tokens":[' + b"0," * 800_000 + b"0]}"
"""What its answer has for each of them is twice a sign of six bytes: more than the system holds."""
HEAD = (
    f"POST /detokenize HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {TOKEN}\r\n"
    f"Content-Type: application/json\r\nContent-Length: {len(BODY)}\r\n\r\n"
).encode()


def asked(gate: Gate) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", gate.port), timeout=20)
    sock.sendall(HEAD + BODY)
    return sock


def test_who_does_not_read_a_whole_answer_is_cut(worker, open_gate):
    worker("scripted")
    impatient = open_gate(write_seconds=1.0)
    with asked(impatient) as sock:
        open_ones = impatient.server._http._connections
        wait_until(lambda: open_ones, seconds=5, what="the connection")
        wait_until(lambda: not open_ones, seconds=20, what="the cut")
        assert sock.recv(12) == b"HTTP/1.1 200", "it was answered"


def test_who_reads_it_late_gets_all_of_it(scripted):
    with asked(scripted) as sock:
        time.sleep(2)
        head, _, begin = sock.recv(65536).partition(b"\r\n\r\n")
        length = int(re.search(rb"Content-Length: (\d+)", head)[1])
        size = len(begin)
        while size < length:
            size += len(sock.recv(262144))
        assert length > 9_000_000
