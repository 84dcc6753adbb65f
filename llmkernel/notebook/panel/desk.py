"""The desk of a panel: takes what a person does, answers, and says what is to be seen.

It knows no widget. What a view sends comes in through `take`, what views show goes out through
the broadcast. Every method may be called from any thread and returns at once: a click must not
wait for a cell, nor a cell for a click.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from llmkernel.errors import (
    ConnectionProblem,
    EngineDied,
    InvalidRequest,
    LLMKernelError,
    PromptTooLong,
)
from llmkernel.notebook.failures import hint
from llmkernel.notebook.panel import actions, archive, attachments, sight
from llmkernel.notebook.panel.answering import Answering, Ending, Question, unexpected
from llmkernel.notebook.panel.attachments import Attachment
from llmkernel.notebook.panel.attendant import Attendant
from llmkernel.notebook.panel.broadcast import Broadcast, Message
from llmkernel.notebook.panel.controls import Controls
from llmkernel.notebook.panel.conversation import Conversation, Turn, name_of
from llmkernel.notebook.panel.queueing import Place
from llmkernel.notebook.panel.undoing import Undo
from llmkernel.notebook.panel.workers import Workers
from llmkernel.notebook.untrusted import whole

if TYPE_CHECKING:
    from llmkernel.notebook.panel.revival import Memory


class Desk:
    """Conversations, the one that is shown, and the answer that is being written.

    `variables` gives the notebook's names. `on_rest` is called after what was shown has changed, but not while an answer is
    being written.
    """

    def __init__(
        self,
        workers: Workers,
        controls: Controls,
        variables: Callable[[], Mapping[str, Any]],
        send: Callable[[Message], None],
        on_rest: Callable[[], None] = lambda: None,
    ) -> None:
        self.lock = threading.RLock()
        self.workers = workers
        self.controls = controls
        self.broadcast = Broadcast(send)
        self.answering: Answering | None = None
        self.answered: Turn | None = None
        """The turn that is being written."""
        self._sent: Turn | None = None
        """The same where its question has only just been sent, and could go back."""
        self.problem: dict[str, Any] | None = None
        self.undo: Undo | None = None
        """The deletion that can be undone, until the next change."""
        self.clicks_wait: bool | None = None
        """Whether what views send waits for a cell that runs; None until one has sent something."""
        self.attendant = Attendant(self)
        self._variables = variables
        self._on_rest = on_rest
        self._place = Place()
        self._numbers = 0
        self._refusals = 0
        self._mark = secrets.token_hex(2)
        """In the ids of turns, so that none is another turn's after the kernel was restarted."""
        self.conversations: list[Conversation] = []
        self.current = self.begin("Conversation 1")

    # conversations ---------------------------------------------------------------

    def begin(self, name: str = "") -> Conversation:
        """A new conversation, which is shown. The system prompt goes along."""
        with self.lock:
            self._numbers += 1
            new = Conversation(
                self.free_name(name or f"Conversation {self._numbers}"),
                f"c{self._numbers}-{self._mark}t",
            )
            new.system = self.current.system if self.conversations else ""
            self.conversations.append(new)
            self.current = new
            return new

    def remember(self, memory: Memory) -> None:
        """Hold the conversations that a page remembers instead. Raises InvalidRequest."""
        with self.lock:
            self.conversations = []
            shown = None
            for talk in memory.talks:
                held = self.begin(talk.name)
                held.system, held.pending = talk.system, talk.pending
                held.draft, held.start = talk.draft, talk.start
                archive.put(held, talk.turns)
                shown = held if talk.name == memory.current else shown
            self.current = shown or (self.conversations or [self.begin()])[0]

    def named(self, name: str) -> Conversation:
        """The conversation of that name. Raises InvalidRequest that lists them."""
        for each in self.conversations:
            if each.name == name:
                return each
        known = ", ".join(each.name for each in self.conversations)
        raise InvalidRequest(f"There is no conversation {name!r} here: {known}.")

    def free_name(self, name: str) -> str:
        """The name, with a number where another conversation has it."""
        taken = {each.name for each in self.conversations}
        name = name_of(name)
        number, free = 2, name
        while free in taken:
            free, number = f"{name} ({number})", number + 1
        return free

    # what a person does ----------------------------------------------------------

    def take(self, message: Mapping[str, Any]) -> None:
        """Do what a view asks for. What cannot be done is shown there, as a problem."""
        message = whole(dict(message))
        wanted = str(message.get("do"))
        if wanted == "sync":
            self.broadcast.tell(self.broadcast.whole())
            return
        if wanted == "stop":
            self.stop()  # waits for no lock
            return
        action = actions.ACTIONS.get(wanted)
        if action is None:
            return  # from a newer or a broken front end
        try:
            with nullcontext() if wanted in actions.UNLOCKED else self.lock:
                if wanted not in actions.SILENT:
                    self.problem = None
                    self.undo = self.undo if wanted == "undo" else None
                action(self, message)
        except Exception as error:  # noqa: BLE001 - a person must be told, whatever it is
            self._refusals += 1  # the same one twice is news too: fields go back to what holds
            self.problem = problem_of(error) | {"number": self._refusals}
        self.show()

    def heard(self) -> None:
        """Something came from a view, in this thread; in the main thread it waited for its turn."""
        waits = threading.current_thread() is threading.main_thread()
        if waits != self.clicks_wait:
            self.clicks_wait = waits
            self.show()

    def show(self) -> None:
        """Bring the views up to date, and between answers what stays in the notebook."""
        with self.lock:
            self.broadcast.show(*sight.of(self))
        if self.answering is None:
            self._on_rest()

    def ask(self, text: str, start: str = "", after: str | None = None) -> Turn:
        """Send a question with what is attached; returns the turn that will hold the answer.

        Raises InvalidRequest where there is nothing to send, or an answer is being written.
        """
        with self.lock:
            self.must_be_free()
            conversation = self.current
            if not text.strip() and not conversation.pending:
                raise InvalidRequest("There is nothing to send.")
            after = after or (conversation.path[-1].id if conversation.path else None)
            asked = conversation.add("user", text, after, conversation.pending)
            typed = conversation.draft, conversation.start, conversation.pending
            conversation.draft, conversation.start, conversation.pending = "", "", []
            conversation.draft_by = ""
            try:
                turn = self.answer(asked, start)
            except Exception:  # nothing was sent, so it is where it was
                conversation.remove(asked.id)
                conversation.draft, conversation.start, conversation.pending = typed
                self.answered = None
                raise
            self._sent = turn
            return turn

    def answer(self, asked: Turn | None, start: str = "") -> Turn:
        """Begin a new answer after a turn, on a branch of its own where there is one."""
        conversation = self.current
        messages = conversation.messages(asked.id) if asked else conversation.opening
        turn = conversation.add("assistant", start, asked.id if asked else None)
        if start:
            messages = [*messages, {"role": "assistant", "content": start}]
        self._begin(
            turn,
            Question(self.workers.client_when_ready, messages, self.controls.params, bool(start)),
        )
        return turn

    def go_on(self, turn: Turn) -> None:
        """Let the model go on inside a turn of its own."""
        messages = self.current.messages(turn.id)
        self._begin(
            turn,
            Question(self.workers.client_when_ready, messages, self.controls.params, goes_on=True),
        )

    def stop(self) -> None:
        """Stop the answer that is being written, if any."""
        answering = self.answering
        if answering is not None:
            answering.stop()

    def must_be_free(self) -> None:
        """Raises InvalidRequest while an answer is being written."""
        if self.answering is not None:
            raise InvalidRequest("An answer is being written. Stop it first.")

    def attach(self, attachment: Attachment, to: Conversation | None = None) -> None:
        """Put something beside what is typed; it goes with the next question."""
        with self.lock:
            to = to or self.current
            others = [one for one in to.pending if one.name != attachment.name]
            to.pending = [*others, attachment]
        self.attendant.count()

    def attach_name(self, name: str) -> None:
        """The same for a variable or a file. Raises InvalidRequest."""
        shown = self.current  # reading may take long
        self.attach(attachments.from_name(name, self._variables()), shown)

    def variable_names(self) -> list[dict[str, str]]:
        """What there is to attach."""
        return attachments.names_of(self._variables())

    def start_went_on(self) -> None:
        """The start of a worker is further, or over; a failure is said to those who look elsewhere."""
        failed = (self.workers.loading or {}).get("failed")
        if failed is not None:
            self.problem = {"text": failed, "hint": "", "lost": False}
        self.show()

    def close(self) -> None:
        """Stop everything that belongs to the panel."""
        self.stop()
        self.attendant.close()
        self.workers.close()

    # the answer ------------------------------------------------------------------

    @property
    def live(self) -> dict[str, Any] | None:
        """Figures of the answer that is being written, its place in the queue among them."""
        answering = self.answering
        if answering is None:
            return None
        facts = answering.live
        if "ahead" in facts:
            facts["ahead"] = self._place.ahead(facts["ahead"], self.workers.report)
        return facts

    def _begin(self, turn: Turn, question: Question) -> None:
        self.undo = None
        with self.lock:  # it must not end before it is known here
            turn.state, turn.problem, turn.facts = "running", "", {}
            self._sent = None
            self.answered, self._place = turn, Place()
            # shown before the first text, which is added to what the views have
            self.show()
            self.answering = Answering(
                question, lambda text: self._add(turn, text), lambda end: self._end(turn, end)
            )
        self.attendant.look()

    def _take_back(self, turn: Turn) -> None:
        """The question did not fit: what was typed and attached is back where it was."""
        for conversation in self.conversations:
            asked = conversation.turns.get(turn.parent or "")
            if turn.id in conversation.turns and asked is not None and len(asked.children) == 1:
                conversation.remove(asked.id)
                conversation.draft = conversation.draft or asked.text
                conversation.start = conversation.start or turn.text
                conversation.pending = conversation.pending or asked.attachments

    def _add(self, turn: Turn, text: str) -> None:
        with self.lock:
            turn.text += text
            self.broadcast.append(turn.id, text)

    def _end(self, turn: Turn, ending: Ending) -> None:
        with self.lock:
            turn.state, turn.facts = ending.state, ending.facts
            if ending.error is not None:
                turn.problem = str(ending.error)
                self.problem = problem_of(ending.error)
                self.workers.lost(ending.error)
            self.answering = self.answered = None
            if isinstance(ending.error, PromptTooLong) and turn is self._sent:
                self._take_back(turn)
        self.show()
        self.attendant.count()


def problem_of(error: Exception) -> dict[str, Any]:
    """What a view shows of an error, and whether a new connection may help."""
    if not isinstance(error, LLMKernelError):
        return {"text": str(unexpected(error)), "hint": "", "lost": False}
    lost = isinstance(error, (ConnectionProblem, EngineDied))
    return {"text": str(error), "hint": hint(error).replace("`", ""), "lost": lost}
