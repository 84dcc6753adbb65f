"""The thread of a panel that looks after the worker and counts tokens, so that nobody waits.

It asks the worker how it is, often while an answer is written and now and then otherwise, and
counts what the next question would cost once a person has paused.
"""

from __future__ import annotations

import contextlib
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from llmkernel.errors import LLMKernelError
from llmkernel.notebook.panel.answering import unexpected
from llmkernel.notebook.panel.attachments import with_attachments
from llmkernel.notebook.panel.conversation import Conversation

if TYPE_CHECKING:
    from llmkernel.notebook.panel.desk import Desk

BUSY_SECONDS = 0.5
IDLE_SECONDS = 3.0
AWAKE_SECONDS = 60.0
"""How long it goes on looking after a panel that nobody touches: a notebook may hold many."""
_PATIENCE_SECONDS = 5.0
_PAUSE_SECONDS = 0.2
"""How long nothing must have been typed before it is counted."""


class Attendant:
    """Starts with the first thing there is to do, and ends with `close`."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._news = threading.Condition()
        self._thread: threading.Thread | None = None
        self._over = False
        self._count_at: float | None = None
        self._look_at = 0.0
        self._awake_until = 0.0
        self.used: int | None = None
        """Tokens of the conversation and of what is typed; None where they are not known."""

    def count(self) -> None:
        """What would be sent has changed."""
        with self._news:
            self._count_at = time.monotonic() + _PAUSE_SECONDS
            self._wake()

    def look(self) -> None:
        """See to the worker soon."""
        with self._news:
            self._look_at = time.monotonic()
            self._wake()

    def close(self) -> None:
        """End the thread."""
        with self._news:
            self._over = True
            self._news.notify()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(_PATIENCE_SECONDS)

    def _wake(self) -> None:
        self._awake_until = time.monotonic() + AWAKE_SECONDS
        self._news.notify()
        if self._thread is None and not self._over:
            self._thread = threading.Thread(target=self._run, name="llmkernel-panel-attendant")
            self._thread.daemon = True
            self._thread.start()

    def _run(self) -> None:
        while (due := self._next()) is not None:
            try:
                self._do(due)
            except Exception as error:  # noqa: BLE001 - one must not end it for good
                self._failed(error)
        self._desk.workers.stop_looking()

    def _do(self, due: str) -> None:
        if due == "look":
            self._desk.workers.look()
        else:
            self._measure()
        self._desk.show()

    def _failed(self, error: Exception) -> None:
        self.used = None
        self._desk.problem = self._desk.problem or {
            "text": str(unexpected(error)),
            "hint": "",
            "lost": False,
        }
        with contextlib.suppress(Exception):  # showing may be what fails
            self._desk.show()

    def _next(self) -> str | None:
        """Wait for what has to be done next; None at the end."""
        with self._news:
            while not self._over:
                now = time.monotonic()
                if self._count_at is not None and now >= self._count_at:
                    self._count_at = None
                    return "count"
                busy = self._desk.answering is not None
                if now >= self._awake_until and not busy:
                    self._news.wait()
                    continue
                if now >= self._look_at:
                    self._look_at = now + (BUSY_SECONDS if busy else IDLE_SECONDS)
                    return "look"
                self._news.wait(min(self._look_at, self._count_at or self._look_at) - now)
        return None

    def _measure(self) -> None:
        conversation = self._desk.current
        try:
            client = self._desk.workers.client()
            self._measure_attachments(conversation, client)
            begun = client.tokenize(conversation.start, add_special_tokens=False)
            self.used = len(client.tokenize(question(conversation))) + len(begun)
        except LLMKernelError:
            self.used = None  # no worker, or one without a chat template: nothing is claimed

    def _measure_attachments(self, conversation: Conversation, client: Any) -> None:
        for each in conversation.pending:
            if each.tokens is None:
                tokens = len(client.tokenize(each.quoted, add_special_tokens=False))
                with self._desk.lock:
                    conversation.pending = [
                        replace(one, tokens=tokens) if one is each else one
                        for one in conversation.pending
                    ]


def question(conversation: Conversation) -> list[dict[str, str]]:
    """What would be sent now; a stroke stands for a question that is not typed yet."""
    text = with_attachments(conversation.draft, conversation.pending)
    return [*conversation.messages(), {"role": "user", "content": text if text.strip() else "-"}]
