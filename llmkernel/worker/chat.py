"""Conversation to prompt by the model's own chat template.

The template comes from the model only; roles and contents are data to it. It runs
in a process of its own (`chat_process`) with a limit on time, memory and output,
so that no template and no conversation can hold up the worker.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import select
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llmkernel import environment
from llmkernel.errors import InvalidRequest
from llmkernel.params import has_lone_surrogate
from llmkernel.protocol import MAX_PROMPT_BYTES
from llmkernel.worker import chat_process

SECONDS = 2.0
"""A conversation of a million characters takes a template some hundredths of a second."""
_ENVIRONMENT = ("LANG", "LC_ALL", "LC_TIME", "LD_LIBRARY_PATH", "PATH", "SYSTEMROOT", "TZ")


class ChatTemplate:
    """A model's chat template. Thread-safe; one conversation is rendered at a time.

    `variables` are what the template may name beside the conversation: the special
    tokens. The process behind it is started at once and again after it was ended.
    """

    def __init__(
        self, source: str, variables: Mapping[str, str] | None = None, seconds: float = SECONDS
    ) -> None:
        self._variables = dict(variables or {}, tools=None, documents=None)
        self._setup = {
            "path": [path for path in sys.path if path],
            "template": source,
            "seconds": seconds,
            "characters": MAX_PROMPT_BYTES,
        }
        self._seconds = seconds
        self._lock = threading.Lock()
        self._process = _Process(self._setup)

    def render(self, messages: Sequence[Mapping[str, str]], continue_final: bool = False) -> str:
        """The prompt for `messages` of {"role", "content"}.

        It ends where the assistant's answer begins, or inside the last message with
        `continue_final`. Raises InvalidRequest where the conversation is empty, the
        template refuses it or a limit is passed.
        """
        if not messages:
            raise InvalidRequest("A conversation needs at least one message.")
        turns = [dict(message) for message in messages]
        if not continue_final:
            return self._run(turns, add_generation_prompt=True)
        # the blank at its end tells whether the template trims contents
        mark = f"CONTINUE{secrets.token_hex(8)} "
        turns[-1]["content"] += mark
        text = self._run(turns, add_generation_prompt=False)
        at = text.rfind(mark.rstrip())
        if at < 0:
            raise InvalidRequest(
                "The model's chat template leaves the last message out, so it cannot be continued."
            )
        return text[:at] if text.startswith(mark, at) else text[:at].rstrip()

    def close(self) -> None:
        """End the process. Nothing can be rendered afterwards until the next `render`."""
        with self._lock:
            self._process.end()

    def _run(self, messages: list[dict[str, str]], add_generation_prompt: bool) -> str:
        request = {
            **self._variables,
            "messages": messages,
            "add_generation_prompt": add_generation_prompt,
        }
        with self._lock:
            if not self._process.alive:
                self._process = _Process(self._setup)
            reply = self._process.ask(json.dumps(request).encode() + b"\n", self._seconds)
        if "text" in reply:
            text = str(reply["text"])
            if has_lone_surrogate(text):
                raise InvalidRequest("The model's chat template makes half a character of this.")
            return text
        raise InvalidRequest(self._explain(reply))

    def _explain(self, reply: Mapping[str, Any]) -> str:
        start = "The model's chat template"
        message = str(reply.get("message", ""))
        texts = {
            "refused": f"{start} refuses this conversation: {message}",
            "broken": f"{start} cannot render this conversation: {message}",
            "large": f"{start} makes more than {MAX_PROMPT_BYTES} characters of this conversation.",
            "memory": f"{start} takes too much memory for this conversation.",
            "time": f"{start} takes more than {self._seconds:g} s for this conversation.",
        }
        return texts.get(reply["failure"], f"{start} failed on this conversation.")


class _Process:
    """One run of `chat_process`: lines in, lines out, gone when it is dropped."""

    def __init__(self, setup: Mapping[str, Any]) -> None:
        inherited = environment.for_worker()
        self._popen = subprocess.Popen(
            [sys.executable, "-I", str(Path(chat_process.__file__))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            # no tokens or keys: a template has no use for them
            env={name: inherited[name] for name in _ENVIRONMENT if name in inherited},
            bufsize=0,
        )
        assert self._popen.stdin is not None
        os.set_blocking(self._popen.stdin.fileno(), False)  # a stopped process reads nothing
        self._finalizer = weakref.finalize(self, _end, self._popen)
        self._first = json.dumps(setup).encode() + b"\n"

    @property
    def alive(self) -> bool:
        return self._popen.poll() is None

    def end(self) -> None:
        """Kill it and wait for it."""
        self._finalizer()

    def ask(self, request: bytes, seconds: float) -> dict[str, Any]:
        """Its answer, or a failure where it was ended for time or memory."""
        allowed = 1.0 + seconds + (chat_process.START_SECONDS if self._first else 0.0)
        first, self._first = self._first, b""
        line = b""
        deadline = time.monotonic() + allowed
        # a process that died is known by the missing answer
        with contextlib.suppress(BrokenPipeError):
            self._write(first + request, deadline)
            line = self._read_line(deadline)
        if line.endswith(b"\n"):
            return json.loads(line)  # type: ignore[no-any-return]
        late = self.alive
        self.end()
        timed = late or self._popen.returncode == -signal.SIGALRM
        return {"failure": "time" if timed else "died"}

    def _write(self, data: bytes, deadline: float) -> None:
        assert self._popen.stdin is not None
        poll = select.poll()
        poll.register(self._popen.stdin.fileno(), select.POLLOUT)
        view = memoryview(data)
        while view and poll.poll(max(0, 1000 * (deadline - time.monotonic()))):
            view = view[self._popen.stdin.write(view) or 0 :]

    def _read_line(self, deadline: float) -> bytes:
        assert self._popen.stdout is not None
        descriptor = self._popen.stdout.fileno()
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        parts: list[bytes] = []
        while not parts or not parts[-1].endswith(b"\n"):
            left = deadline - time.monotonic()
            if left <= 0 or not poll.poll(1000 * left):
                break
            part = os.read(descriptor, 2**16)
            if not part:
                self._popen.wait(1)
                break
            parts.append(part)
        return b"".join(parts)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            with contextlib.suppress(OSError):  # what was not written goes down with it
                stream.close()
