"""The panel where anywidget is missing: boxes and buttons of ipywidgets alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import ipywidgets

from llmkernel.notebook import hypertext
from llmkernel.notebook.panel.transcript import transcript

if TYPE_CHECKING:
    from llmkernel.notebook.panel.desk import Desk


class SimplePanel(ipywidgets.VBox):  # type: ignore[misc]
    """A conversation, a box to type in, Send, Stop and Regenerate."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._log = ipywidgets.HTML()
        self._box = ipywidgets.Textarea(placeholder="Ask …", layout={"width": "100%"})
        send = ipywidgets.Button(description="Send", button_style="primary")
        stop = ipywidgets.Button(description="Stop")
        again = ipywidgets.Button(description="Regenerate")
        send.on_click(lambda _: self._ask())
        stop.on_click(lambda _: desk.stop())
        again.on_click(lambda _: self._again())
        super().__init__([self._log, self._box, ipywidgets.HBox([send, stop, again])])
        self._draw()

    def send(self, content: Any, buffers: Any = None) -> None:
        """What the desk tells its views: here it means to draw again."""
        del content, buffers
        self._draw()

    def _ask(self) -> None:
        text, self._box.value = self._box.value, ""
        self._desk.take({"do": "send", "text": text})
        if self._desk.current.draft:
            self._box.value = self._desk.current.draft

    def _again(self) -> None:
        answers = [turn for turn in self._desk.current.path if turn.role == "assistant"]
        if answers:
            self._desk.take({"do": "regenerate", "turn": answers[-1].id})

    def _draw(self) -> None:
        problem = self._desk.problem
        shown = transcript(self._desk.current, classes="")["text/html"]
        self._log.value = shown + (hypertext.literal(problem["text"], "p") if problem else "")
