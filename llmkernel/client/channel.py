"""What a link does where it lives: connect, ask, hand out answers, notice the end.

A channel connects when there is something to ask, and again after the connection broke:
it reads the connection file anew, so that a worker that was started again is found.
What was in flight when a connection broke ends with an error at once; nothing is sent
twice.
"""

from __future__ import annotations

import asyncio

import zmq

from llmkernel import connection as files
from llmkernel import protocol
from llmkernel.client.background import LAST_SECONDS, Home
from llmkernel.client.calls import Answer, Call
from llmkernel.client.session import Session
from llmkernel.connection import Connection
from llmkernel.errors import (
    ConnectionProblem,
    LLMKernelError,
    WorkerDied,
    WorkerUnresponsive,
)

CONNECT_SECONDS = 10.0
"""How long a worker that runs may take to say hello."""
SILENCE_SECONDS = 30.0
"""How long a worker may say nothing to a client that has work there; it pings twice a second."""
_RETRY_SECONDS = 0.1
_CHECK_SECONDS = 1.0
_GRANT = protocol.CREDIT_WINDOW // 4
_BURIAL_SECONDS = 0.3
"""How long the process of a worker whose connection broke may take to be seen as gone."""


class Channel:
    """Connects to the worker of `connection`, or to the one of that name that came after it.

    All methods are called on the loop of `home`.
    """

    def __init__(self, home: Home, connection: Connection, silence: float) -> None:
        self.connection = connection
        self._silence = silence
        self._home = home
        self._loop = home.loop
        self._session: Session | None = None
        self._calls: dict[int, Call] = {}
        self._deadline = 0.0
        self._retry: asyncio.TimerHandle | None = None
        self._watch: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, call: Call) -> None:
        """Ask; the answer goes into the call's inbox."""
        if call.cancelled:
            call.end(protocol.Cancelled(id=call.id))
            return
        self._calls[call.id] = call
        session = self._session
        if session is not None and session.welcome is not None:
            self._send(session, call)
        elif session is None and self._retry is None:
            self._deadline = self._loop.time() + CONNECT_SECONDS
            self._connect()
        if self._watch is None:
            if session is not None:
                session.heard = self._loop.time()
            self._watch = self._loop.call_later(_CHECK_SECONDS, self._check)

    def _send(self, session: Session, call: Call) -> None:
        try:
            session.check(call.question)
            session.send(call.question)
            call.sent = True
        except LLMKernelError as error:  # larger than a message may be, or newer than the worker
            self._end(call, error)

    def cancel(self, call: Call) -> None:
        """The caller does not want the answer any more; its last message still comes."""
        if call.id not in self._calls:
            return
        if not call.sent or not isinstance(call.question, protocol.Submit):
            self._end(call, protocol.Cancelled(id=call.id))
        elif self._session is not None:
            self._session.send(protocol.Cancel(id=call.id))

    def close(self) -> None:
        """Cancel what is in flight and end the connection."""
        if self._session is not None:
            asked = any(call.sent for call in self._calls.values())
            for call in list(self._calls.values()):
                self.cancel(call)
            if asked:
                self._session.leave(LAST_SECONDS)
            else:
                self._session.close()
            self._session = None
        for timer in (self._retry, self._watch):
            if timer is not None:
                timer.cancel()
        self._fail(list(self._calls.values()), ConnectionProblem("The client was closed."))

    def _connect(self) -> None:
        self._retry = None
        try:
            self.connection = files.find(self.connection.name)
            self._session = Session(
                self._loop,
                self._home.context,
                self.connection,
                on_welcome=self._on_welcome,
                on_message=self._on_message,
                on_broken=self._on_broken,
            )
        except LLMKernelError as error:
            self._fail(list(self._calls.values()), error)
        except (OSError, zmq.ZMQError) as error:
            problem = ConnectionProblem(
                f"This process can open no more connections ({error}). Close the clients that it "
                "does not need, or raise its limit on open files (ulimit -n)."
            )
            self._fail(list(self._calls.values()), problem)

    def _on_welcome(self, session: Session) -> None:
        for call in list(self._calls.values()):
            if not call.sent:
                self._send(session, call)

    def _on_broken(self, session: Session, error: LLMKernelError | None) -> None:
        self._session = None
        if session.welcome is None:
            self._try_again(error)
            return
        lost = [call for call in self._calls.values() if call.sent]
        for call in lost:
            del self._calls[call.id]
        if error is not None:
            self._fail(lost, error)
        elif lost:
            task = self._loop.create_task(self._bury(session.connection, lost))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _try_again(self, error: LLMKernelError | None) -> None:
        """The worker did not take us in. A busy one may yet; one that said why not will not."""
        late = self._loop.time() > self._deadline
        if error is None and late:
            error = self._unresponsive(f"has not said hello for {CONNECT_SECONDS:g} s")
        if error is not None:
            self._fail(list(self._calls.values()), error)
        elif self._calls:
            self._retry = self._loop.call_later(_RETRY_SECONDS, self._connect)

    async def _bury(self, connection: Connection, lost: list[Call]) -> None:
        """A connection that broke: find out whether the worker did."""
        deadline = self._loop.time() + _BURIAL_SECONDS
        while connection.alive and self._loop.time() < deadline:  # noqa: ASYNC110 - no event for it
            await asyncio.sleep(0.002)
        name, pid = connection.name, connection.pid
        died = not connection.alive
        for call in lost:
            if died:
                message = f"The worker {name!r} (process {pid}) died."
                self._end(call, WorkerDied(message, tokens_delivered=call.tokens))
            else:
                message = (
                    f"The connection to the worker {name!r} (process {pid}) broke: it, or this "
                    "process, was stopped or too busy for over a second."
                )
                self._end(call, WorkerUnresponsive(message, tokens_delivered=call.tokens))

    def _check(self) -> None:
        """Once a second while there is something in flight: does the worker still talk?"""
        self._watch = None
        session = self._session
        now = self._loop.time()
        if session is not None and session.welcome is None and now > self._deadline:
            session.close()
            self._session = None
            self._try_again(None)
        elif session is not None and session.welcome is not None:
            if not any(isinstance(call.question, protocol.Submit) for call in self._calls.values()):
                session.heard = now  # nothing that it would ping for
            elif now - session.heard > self._silence:
                self._give_up(session)
        if self._calls:
            self._watch = self._loop.call_later(_CHECK_SECONDS, self._check)

    def _give_up(self, session: Session) -> None:
        session.close()
        self._session = None
        error = self._unresponsive(f"has said nothing for {self._silence:g} s")
        self._fail(list(self._calls.values()), error)

    def _unresponsive(self, what: str) -> WorkerUnresponsive:
        name = self.connection.name
        return WorkerUnresponsive(
            f"The worker {name!r} (process {self.connection.pid}) runs but {what}. "
            f"If it stays so, end it with: llmkernel stop --kill {name}"
        )

    def _on_message(self, message: protocol.WorkerMessage) -> None:
        if isinstance(message, protocol.Deltas):
            for delta in message.deltas:
                self._on_delta(delta)
        elif isinstance(message, protocol.Accepted):
            if (accepted := self._calls.get(message.id)) is not None:
                accepted.position = message.position
                accepted.prompt_tokens = message.prompt_tokens
        elif isinstance(message, Answer):
            call = self._calls.get(message.id)
            if call is not None:
                self._end(call, message)

    def _on_delta(self, delta: protocol.StreamDelta) -> None:
        call = self._calls.get(delta.id)
        if call is None:
            return
        try:
            call.deliver(delta)
        except ConnectionProblem as error:
            self.cancel(call)
            self._end(call, error)
            return
        if call.ungranted >= _GRANT and self._session is not None:
            self._session.send(protocol.Credit(id=call.id, tokens=call.ungranted))
            call.ungranted = 0

    def _fail(self, calls: list[Call], error: LLMKernelError) -> None:
        for call in calls:
            self._end(call, _copy(error))

    def _end(self, call: Call, outcome: Answer | LLMKernelError) -> None:
        self._calls.pop(call.id, None)
        call.end(outcome)


def _copy(error: LLMKernelError) -> LLMKernelError:
    """One exception for each who raises it: tracebacks and partial results are their own."""
    return type(error)(error.message, **error.data)
