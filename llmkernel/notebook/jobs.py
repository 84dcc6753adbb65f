"""`--background`: a generation that goes on while the notebook does something else."""

from __future__ import annotations

import asyncio
import contextvars
import math
import threading
from collections.abc import Generator
from typing import TYPE_CHECKING, Any

from llmkernel.client.calls import TICK_SECONDS
from llmkernel.errors import InvalidRequest
from llmkernel.notebook.generating import Asked, hand_over_code, value

if TYPE_CHECKING:
    from llmkernel.client.generation import Generation


class Job:
    """A handle on a generation in the background: `result()`, `await`, `cancel()`, `done`.

    It ends with the kernel; interrupting a cell does not touch it.
    """

    def __init__(self, shell: Any, asked: Asked) -> None:
        self._asked = asked
        self._shell = shell
        self._handed_over = False
        self._over = threading.Event()
        self._result: Any = None
        self._error: BaseException | None = None
        # the copy holds which cell the output belongs to
        context = contextvars.copy_context()
        threading.Thread(
            target=context.run, args=(self._read,), name="llmkernel-background", daemon=True
        ).start()

    @property
    def done(self) -> bool:
        """Whether it has ended, in whatever way."""
        return self._over.is_set()

    @property
    def generation(self) -> Generation:
        """The answer so far."""
        return self._asked.stream.generation

    def result(self, timeout: float | None = None) -> Any:
        """Wait for the answer; with --format json for what it says.

        Of a cancelled one it is what had come. With --format code the first cell that asks
        has the code put under it. Raises TimeoutError after `timeout` seconds, and the error
        that ended the generation.
        """
        if timeout is not None and math.isnan(timeout):
            raise InvalidRequest("timeout must be a number of seconds, and was nan.")
        if not self._over.wait(None if timeout is None else min(timeout, threading.TIMEOUT_MAX)):
            raise TimeoutError(f"The answer is not complete after {timeout:g} s.")
        return self._outcome()

    def __await__(self) -> Generator[Any, None, Any]:
        """`await job` is `result()` for code that awaits; a cancelled task leaves the job alone."""
        return self._wait().__await__()

    def cancel(self) -> None:
        """Stop it; what has come stays. Nothing happens where it has ended."""
        self._asked.stream.close()

    def __repr__(self) -> str:
        state = "running" if not self.done else "failed" if self._error else "done"
        return f"<{type(self).__name__} in the background: {state}>"

    async def _wait(self) -> Any:
        while not self.done:  # noqa: ASYNC110 - a kernel's interrupt needs a loop that ticks
            await asyncio.sleep(TICK_SECONDS)
        return self._outcome()

    def _outcome(self) -> Any:
        if self._error is not None:
            raise self._error
        if self._asked.request.form == "code" and not self._handed_over:
            self._handed_over = True  # only a cell that runs can be followed by another
            hand_over_code(self._shell, self._result)
        return self._result

    def _read(self) -> None:
        try:
            answer = self._asked.read()
            self._result = value(self._asked.request, answer)
        except BaseException as error:  # noqa: BLE001 - nobody else hears of it, whatever it is
            self._error = error
        finally:
            self._over.set()
