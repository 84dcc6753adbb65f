"""One answer, from the question to its end, in a thread of its own.

Nothing here waits for the notebook's main thread: the question goes out and Stop goes out on
the client's own socket, whatever cell is running.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from llmkernel.errors import LLMKernelError
from llmkernel.notebook.panel.conversation import Messages, State
from llmkernel.notebook.panel.flusher import Flusher
from llmkernel.notebook.untrusted import plain, printable
from llmkernel.params import SamplingParams

if TYPE_CHECKING:
    from llmkernel.client import Client
    from llmkernel.client.generation import Generation
    from llmkernel.client.streams import Stream


class Question(NamedTuple):
    """What is asked. With `goes_on` the last message is the beginning of the answer."""

    client: Callable[[threading.Event], Client | None]
    """Called in the thread of the answer: it may take long, until the event is set, and may raise."""
    messages: Messages
    params: SamplingParams
    goes_on: bool = False


class Ending(NamedTuple):
    """How an answer ended. `error` is what broke it off."""

    state: State
    facts: dict[str, Any]
    error: LLMKernelError | None = None


class Answering:
    """An answer that is being written.

    `on_text` gets new text, at most 25 times a second, and then `on_end` is called once; both
    in threads of this object.
    """

    def __init__(
        self,
        question: Question,
        on_text: Callable[[str], None],
        on_end: Callable[[Ending], None],
    ) -> None:
        self._question = question
        self._on_text = on_text
        self._on_end = on_end
        self._began = time.monotonic()
        self._first: float | None = None
        self._tokens = 0
        self._lock = threading.Lock()
        self._stream: Stream | None = None
        self._stopped = threading.Event()
        self.ending: Ending | None = None
        self._thread = threading.Thread(target=self._run, name="llmkernel-panel-answer")
        self._thread.daemon = True
        self._thread.start()

    def stop(self) -> None:
        """Cancel it in the worker; what has come stays. Returns at once, from any thread."""
        with self._lock:
            self._stopped.set()
            if self._stream is not None:
                self._stream.close()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for its end; False where it has not come within `timeout` seconds."""
        self._thread.join(timeout)
        return not self._thread.is_alive()

    @property
    def live(self) -> dict[str, Any]:
        """Figures so far: tokens, seconds to the first one, tokens a second.

        Before the first token `ahead` counts the requests that were before it in the queue.
        """
        now = time.monotonic()
        facts: dict[str, Any] = {"tokens": self._tokens}
        if self._first is None:
            ahead = self._stream.queue_position if self._stream is not None else None
            return facts if ahead is None else facts | {"ahead": ahead}
        facts["first"] = round(self._first - self._began, 3)
        if now > self._first and self._tokens > 1:
            facts["rate"] = round((self._tokens - 1) / (now - self._first), 1)
        return facts

    def _run(self) -> None:
        with Flusher(self._on_text) as flusher:
            ending = self._read(flusher)
        self.ending = ending
        self._on_end(ending)

    def _read(self, flusher: Flusher) -> Ending:
        try:
            stream = self._begin()
            if stream is None:
                return Ending("stopped", {})
            for delta in stream:
                self._first = self._first or time.monotonic()
                self._tokens += len(delta.token_ids)
                flusher.add(printable(delta.text))
        except LLMKernelError as error:
            return Ending("failed", self.live, error)
        except Exception as error:  # noqa: BLE001 - else the panel would wait for its end for good
            return Ending("failed", self.live, unexpected(error))
        answer = stream.generation
        # where the worker has not said how it ended, it was not heard any more
        stopped = self._stopped.is_set() and answer.finish_reason not in ("stop", "length")
        return Ending("stopped" if stopped else "done", self._facts(answer))

    def _begin(self) -> Stream | None:
        client = self._question.client(self._stopped)
        with self._lock:
            if client is not None and not self._stopped.is_set():
                self._stream = client.stream_chat(
                    self._question.messages,
                    self._question.params,
                    continue_final_message=self._question.goes_on,
                )
            return self._stream

    def _facts(self, answer: Generation) -> dict[str, Any]:
        usage, timings = answer.usage, answer.timings
        facts = self.live | {"tokens": usage.completion_tokens, "reason": answer.finish_reason}
        if usage.prompt_tokens:
            facts |= {"prompt": usage.prompt_tokens, "cached": usage.cached_tokens}
        if timings.decode > 0 and usage.completion_tokens > 1:
            facts["rate"] = round((usage.completion_tokens - 1) / timings.decode, 1)
        if timings.prefill > 0:
            facts["first"] = round(timings.time_to_first_token, 3)
            facts["queue"] = round(timings.queue, 3)
        return facts


def unexpected(error: Exception) -> LLMKernelError:
    """An error that nobody thought of, in words."""
    what = f"{type(error).__name__}: {plain(str(error))}"[:300]
    return LLMKernelError(f"Something in the panel failed that should not: {what}")
