"""A hub on loopback: the part of the Hugging Face HTTP interface that a download uses."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(ThreadingHTTPServer):
    """Serves one repository, `org/model`, from a folder.

    `token` makes it private, `gated` asks for a licence where files are fetched,
    `seconds` is how long each weight file takes, `broken` answers every request with it.
    """

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder = folder
        self.token: str | None = None
        self.gated = False
        self.seconds = 0.0
        self.broken: int | None = None
        self.served: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    """The routes."""

    server: Hub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self, body: bool) -> None:
        path = urlsplit(self.path).path
        hub = self.server
        if hub.broken is not None:
            self._refuse(hub.broken, "")
        elif hub.token and self.headers.get("Authorization") != f"Bearer {hub.token}":
            self._refuse(401, "RepoNotFound")
        elif "org/model" not in path:
            self._refuse(404, "RepoNotFound")
        elif path.startswith("/api/models/org/model"):
            self._describe(path)
        elif hub.gated:
            self._refuse(403, "GatedRepo")
        else:
            self._send(path.partition("/resolve/")[2].partition("/")[2], body)

    def _describe(self, path: str) -> None:
        if "/revision/" in path and path.rpartition("/")[2] not in ("main", COMMIT):
            self._refuse(404, "RevisionNotFound")
            return
        folder = self.server.folder
        files = {
            file.relative_to(folder).as_posix(): file
            for file in sorted(folder.rglob("*"))
            if file.is_file()
        }
        if "/tree/" in path:
            self._json(
                [
                    {"type": "file", "path": name, "size": f.stat().st_size, "oid": digest(f)}
                    for name, f in files.items()
                ]
            )
            return
        siblings = [{"rfilename": name, "size": f.stat().st_size} for name, f in files.items()]
        self._json({"id": "org/model", "sha": COMMIT, "siblings": siblings, "tags": []})

    def _send(self, name: str, body: bool) -> None:
        file = self.server.folder / name
        if not file.is_file():
            self._refuse(404, "EntryNotFound")
            return
        data = file.read_bytes()
        self.send_response(200)
        self.send_header("ETag", f'"{digest(file)}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if body:
            self.server.served.append(name)
            self._trickle(data, self.server.seconds if name.endswith(".safetensors") else 0.0)

    def _trickle(self, data: bytes, seconds: float) -> None:
        parts = 10 if seconds else 1
        size = -(-len(data) // parts)
        for start in range(0, len(data), size):
            self.wfile.write(data[start : start + size])
            time.sleep(seconds / parts)

    def _json(self, value: object) -> None:
        data = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _refuse(self, status: int, code: str) -> None:
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()


def digest(file: Path) -> str:
    return hashlib.sha1(file.read_bytes(), usedforsecurity=False).hexdigest()


@contextmanager
def serving(folder: Path) -> Iterator[Hub]:
    """A hub that runs in a thread while the block does."""
    hub = Hub(folder)
    thread = threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        thread.join()
        hub.server_close()
