"""The panel in a front end: an anywidget whose state is the desk's broadcast."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import anywidget
import traitlets

Message = dict[str, Any]

BUNDLE = Path(__file__).parent / "static" / "panel.js"


class PanelWidget(anywidget.AnyWidget):
    """What is on the page. `take` gets what views send, `whole` says what a new one must know.

    Changes go out as messages, which only open views hear; the trait `whole` is read for every
    view that opens later, and is never sent by itself.
    """

    key = traitlets.Unicode().tag(sync=True)
    """The id of the model, which a page needs to find it in its widget manager."""
    whole = traitlets.Any().tag(sync=True, to_json=lambda _, widget: widget.present())

    def __init__(
        self,
        take: Callable[[Message], None],
        whole: Callable[[], Message],
        key: str | None = None,
    ) -> None:
        self._take = take
        self.present = whole
        key = key or uuid.uuid4().hex
        super().__init__(_esm=_source(), key=key, model_id=key)
        self.on_msg(lambda _widget, content, _buffers: self._take(content))

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"  # the traits have an address and a random id

    def open(self) -> None:
        """Open the comm, and let its messages come in where the front end sends them.

        ipykernel 7.4 sends them to the thread that last published on the comm, which may be the
        main thread with a cell in it. None there means that the front end's choice holds, a
        thread of its own where it has one: the Stop button then works while a cell runs.
        """
        super().open()
        if getattr(self.comm, "_reply_subshell_for", None) is not None:
            self.comm._reply_subshell_for = None


@cache
def _source() -> str:
    return BUNDLE.read_text(encoding="utf-8")
