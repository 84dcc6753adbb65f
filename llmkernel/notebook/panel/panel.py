"""`ChatPanel`: the panel as Python sees it."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmkernel.errors import InvalidRequest
from llmkernel.notebook import publisher
from llmkernel.notebook.chats import Place
from llmkernel.notebook.panel import archive, checks
from llmkernel.notebook.panel.attachments import from_value
from llmkernel.notebook.panel.controls import Controls
from llmkernel.notebook.panel.conversation import Messages, name_of
from llmkernel.notebook.panel.desk import Desk
from llmkernel.notebook.panel.presets import PresetFile
from llmkernel.notebook.panel.transcript import fingerprint, transcript
from llmkernel.notebook.panel.workers import Workers

if TYPE_CHECKING:
    from llmkernel.client import Client
    from llmkernel.notebook.panel.revival import Memory

VIEW = "application/vnd.jupyter.widget-view+json"
_TICK_SECONDS = 0.05
_shown_in: dict[str, ChatPanel] = {}
"""The panel that a cell shows, where the front end names its cells."""


class ChatPanel:
    """A conversation with a worker, on the page of a notebook and in Python.

    `worker` is a name or a Client; left out it is the one that `%llm use` chose, else the only
    one that runs. `system` is what the model is told first, `conversation` a list of messages
    or the name of a conversation of `%%chat`, and `params` are sampling parameters with the
    names of SamplingParams. As the value of a cell, or with `display`, it shows itself.

    All methods may be called while an answer is being written, from any thread. Raises
    InvalidRequest for a parameter or a message that cannot be.
    """

    def __init__(
        self,
        worker: str | Client | None = None,
        system: str | None = None,
        conversation: str | Iterable[Mapping[str, str]] | None = None,
        **params: Any,
    ) -> None:
        self._shell = _shell()
        self._displays: list[publisher.Display] = []
        self._kept: tuple[object, ...] = ()
        self._widget: Any = None
        self._cells: set[str] = set()
        chosen = checks.worker_name(worker)
        told = checks.text_or_none(system, "system")
        workers = Workers(chosen or _chosen_by_magics(self._shell))
        self._desk = Desk(
            workers, Controls(PresetFile(), **params), self._variables, self._send, self._keep
        )
        if isinstance(conversation, str):
            self._begin_named(conversation)
        elif conversation is not None:
            self.conversation = checks.several(conversation, "conversation")
        if system is not None:
            self._desk.current.system = told
        self._desk.show()

    # conversations ---------------------------------------------------------------

    @property
    def conversation(self) -> Messages:
        """The shown turns as messages that `chat` of a client takes, the system text first.

        Setting it to a list of messages says those instead. Raises InvalidRequest for one
        that holds something else, and while an answer is being written.
        """
        with self._desk.lock:
            return self._desk.current.messages()

    @conversation.setter
    def conversation(self, messages: Iterable[Mapping[str, str]]) -> None:
        with self._desk.lock:
            self._desk.must_be_free()
            self._desk.current.replace(checks.several(messages, "conversation"))
        self._changed()

    @property
    def conversations(self) -> list[str]:
        """The names of all conversations of this panel."""
        return [each.name for each in self._desk.conversations]

    @property
    def name(self) -> str:
        """The conversation that is shown; setting it shows another, or begins one."""
        return self._desk.current.name

    @name.setter
    def name(self, name: str) -> None:
        name = checks.text(name, "name")
        with self._desk.lock:
            known = [each for each in (name, name_of(name)) if each in self.conversations]
            self._desk.current = self._desk.named(known[0]) if known else self._desk.begin(name)
        self._changed()

    @property
    def system(self) -> str:
        """What the model is told before the conversation that is shown; None sets it to nothing."""
        return self._desk.current.system

    @system.setter
    def system(self, text: str | None) -> None:
        self._desk.current.system = checks.text_or_none(text, "system")
        self._changed()

    @property
    def params(self) -> dict[str, Any]:
        """The sampling parameters that differ from their defaults; set it to change them all."""
        return dict(self._desk.controls.values)

    @params.setter
    def params(self, values: Mapping[str, Any]) -> None:
        values = checks.mapping(values, "params")
        with self._desk.lock:
            gone: dict[str, Any] = dict.fromkeys(self._desk.controls.values)
            self._desk.controls.set({**gone, **values})
        self._changed()

    # talking ---------------------------------------------------------------------

    def ask(self, text: str, *, start: str = "") -> str:
        """Ask, with what is attached, and wait for the answer; the page shows it as it comes.

        `start` are words that the answer begins with. An interrupt stops it. Raises how it
        failed; what has come stays in the conversation.
        """
        turn = self._desk.ask(checks.text(text, "The question"), checks.text(start, "start"))
        answering = self._desk.answering
        try:
            while answering is not None and not answering.wait(_TICK_SECONDS):
                pass
        except KeyboardInterrupt:
            self.stop()
            raise
        if answering is not None and answering.ending and answering.ending.error:
            raise answering.ending.error
        return turn.text

    def stop(self) -> None:
        """Stop the answer that is being written; what has come stays."""
        self._desk.stop()

    def attach(self, value: Any, name: str | None = None) -> None:
        """Put a variable, a file or a value beside the next question, as quoted text.

        A text alone is the name of a variable or a file. Any other value needs a `name`.
        Raises InvalidRequest.
        """
        name = None if name is None else checks.text(name, "name")
        if name is None and isinstance(value, str):
            self._desk.attach_name(value)
        elif name is None or not name.strip():
            raise InvalidRequest("Give the value a name: panel.attach(value, name='sales')")
        else:
            self._desk.attach(from_value(name, value))
        self._changed()

    # files -----------------------------------------------------------------------

    def save(self, path: str | PathLike[str]) -> None:
        """Write the conversation that is shown: all of it as JSON, or as Markdown for `*.md`."""
        file = Path(fspath(path))
        write = archive.to_markdown if file.suffix == ".md" else archive.to_json
        with self._desk.lock:
            text = write(self._desk.current)
        file.write_text(text, encoding="utf-8", newline="\n")

    def load(self, path: str | PathLike[str]) -> None:
        """Open what `save` wrote as a further conversation. Raises InvalidRequest."""
        file = Path(fspath(path))
        try:
            text = file.read_bytes().decode()  # as it is: read_text would end lines of its own
        except UnicodeDecodeError:
            raise InvalidRequest(f"{file.name} is no text in UTF-8.") from None
        self._desk.take({"do": "import", "text": text})
        self._raise_problem()

    def close(self) -> None:
        """Stop, and take the panel off the page, where its transcript stays. The worker stays too."""
        self._desk.close()
        self._leave_page()

    # the page --------------------------------------------------------------------

    @property
    def widget(self) -> Any:
        """The ipywidget that shows the panel, for layouts of one's own."""
        if self._widget is None:
            self._widget = _make_widget(self._desk)
            self._desk.attendant.count()
        return self._widget

    def revived(self, key: str, memory: Memory) -> None:
        """Go on under the id `key` with what a page remembers; `revival` calls it."""
        self._desk.remember(memory)
        self._desk.show()
        self._widget = _make_widget(self._desk, key)
        self._desk.attendant.count()

    def __repr__(self) -> str:
        turns = len(self._desk.current.path)
        return f"ChatPanel({self.name!r}, {turns} turn{'' if turns == 1 else 's'})"

    def _ipython_display_(self) -> None:
        self.show()

    def show(self) -> None:
        """Show the panel in the output of the cell that runs, as `display` does."""
        mode = publisher.mode(self._shell)
        if mode == "terminal":
            print(transcript(self._desk.current)["text/plain"])
            return
        if mode == "live":
            # no name and no number of turns: this output is not published again, the transcript is
            view = {"version_major": 2, "version_minor": 0, "model_id": self.widget.model_id}
            self._shell.display_pub.publish({VIEW: view, "text/plain": type(self).__name__})
            self._take_place(Place.of(self._shell).cell)
        display = publisher.Display(self._shell)
        display.publish(transcript(self._desk.current))
        if mode == "live":
            self._displays.append(display)

    def _take_place(self, cell: str | None) -> None:
        """A cell that is run again shows this panel; one that was seen there alone is let go.

        Else a notebook that is open for long holds a widget for each run of each cell.
        """
        if cell is None:
            return
        before = _shown_in.get(cell)
        _shown_in[cell] = self
        self._cells.add(cell)
        if before is not None and before is not self:
            before._cells.discard(cell)
            if not before._cells:
                before._leave_page()

    def _leave_page(self) -> None:
        self._displays.clear()
        widget, self._widget = self._widget, None
        if widget is not None:
            widget.close()
            widget.layout.close()

    def _keep(self) -> None:
        """Bring what is left in the notebook up to date."""
        with self._desk.lock:
            present = fingerprint(self._desk.current)
            if present == self._kept or not self._displays:
                return
            self._kept = present
            bundle = transcript(self._desk.current)
        for display in self._displays:
            display.publish(bundle)

    def _changed(self) -> None:
        self._desk.undo = None
        self._desk.attendant.count()
        self._desk.show()

    def _send(self, message: Mapping[str, Any]) -> None:
        widget = self._widget  # another thread may let it go
        if widget is not None:
            widget.send(message)

    def _variables(self) -> Mapping[str, Any]:
        return self._shell.user_ns if self._shell is not None else {}

    def _raise_problem(self) -> None:
        if self._desk.problem is not None:
            raise InvalidRequest(self._desk.problem["text"])

    def _begin_named(self, name: str) -> None:
        chats = getattr(_magics_session(self._shell), "chats", {})
        self._desk.current.name = name
        if name in chats:
            self._desk.current.replace(chats[name].messages)


def _make_widget(desk: Desk, key: str | None = None) -> Any:
    try:
        from llmkernel.notebook.panel.widget import PanelWidget
    except ImportError:  # no anywidget: buttons and boxes of ipywidgets alone
        from llmkernel.notebook.panel.simple import SimplePanel

        return SimplePanel(desk)

    def take(message: Mapping[str, Any]) -> None:
        desk.heard()
        desk.take(message)

    return PanelWidget(take, desk.broadcast.whole, key)


def _shell() -> Any:
    get_ipython = getattr(sys.modules.get("IPython"), "get_ipython", None)
    return get_ipython() if get_ipython is not None else None


def _magics_session(shell: Any) -> Any:
    manager = getattr(shell, "magics_manager", None)
    magics = manager.registry.get("LLMKernelMagics") if manager is not None else None
    return getattr(magics, "session", None)


def _chosen_by_magics(shell: Any) -> str | None:
    return getattr(_magics_session(shell), "worker", None)
