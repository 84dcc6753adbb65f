"""Who may connect: a list of CURVE public keys, asked by ZeroMQ before anything is delivered.

Without such a handler CURVE admits everybody who knows the server's public key. The
protocol is ZAP, ZeroMQ RFC 27.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import zmq
import zmq.utils.z85

from llmkernel.pump import Pump
from llmkernel.worker.tally import Tally

_ENDPOINT = "inproc://zeromq.zap.01"


class AllowList:
    """Admits the listed keys to every CURVE server socket of `context`.

    `principals` maps a client's public key (Z85) to the name that messages of that
    client carry as "User-Id". Create it before any server socket binds: whoever
    connects while there is no handler is admitted.
    """

    def __init__(
        self, context: zmq.Context[zmq.Socket[bytes]], principals: Mapping[str, str]
    ) -> None:
        self._principals = {
            zmq.utils.z85.decode(key): name.encode() for key, name in principals.items()
        }
        self._socket = context.socket(zmq.REP)
        self._socket.linger = 0
        self._socket.bind(_ENDPOINT)
        self._pump: Pump | None = None
        self.refused = Tally("a client with an unknown key was refused")

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Answer from now on; until then whoever connects waits."""
        self._pump = Pump(loop, self._socket, self._on_request)

    def close(self) -> None:
        """Stop answering."""
        if self._pump is not None:
            self._pump.close()
        self._socket.close()

    def _on_request(self, frames: list[zmq.Frame]) -> None:
        # version, request id, domain, address, identity, mechanism, credentials...
        parts = [frame.bytes for frame in frames]
        request_id = parts[1] if len(parts) > 1 else b""
        user = self._user(parts)
        verdict = (b"200", b"OK", user) if user else (b"400", b"unknown key", b"")
        if not user:
            self.refused.add()
        self._socket.send_multipart((b"1.0", request_id, *verdict, b""))
        assert self._pump is not None, "requests come through the pump"
        self._pump.poke()

    def _user(self, parts: list[bytes]) -> bytes:
        if len(parts) != 7 or parts[0] != b"1.0" or parts[5] != b"CURVE":
            return b""
        return self._principals.get(parts[6], b"")
