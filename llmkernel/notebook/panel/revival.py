"""A panel made again in a kernel that was restarted, from what the page still knows.

The page calls `revive` when a person presses Reconnect there. The widget gets the id that it
had, so the outputs of the notebook find it again.
"""

from __future__ import annotations

import sys
from typing import Any

import msgspec

from llmkernel.errors import InvalidRequest, LLMKernelError
from llmkernel.notebook.panel.archive import Saved
from llmkernel.notebook.panel.attachments import Attachment
from llmkernel.notebook.panel.panel import ChatPanel

_panels: dict[str, ChatPanel] = {}


class Talk(msgspec.Struct, frozen=True):
    """One conversation with all its branches, and what was typed and attached."""

    name: str
    system: str = ""
    draft: str = ""
    start: str = ""
    pending: list[Attachment] = []
    turns: list[Saved] = []


class Memory(msgspec.Struct, frozen=True):
    """What a page knows of a panel. `current` is the conversation that it showed."""

    current: str
    talks: list[Talk]
    worker: str | None = None
    values: dict[str, Any] = {}


def revive(key: str, saved: str) -> None:
    """The panel `key` with the conversations and the parameters of `saved`, a text in JSON.

    Where this kernel still has it, that one stays as it is. The notebook's variables that held
    the panel are not there any more; `llmkernel.notebook.panel.revival.last()` has it. Raises
    InvalidRequest where `saved` says something else.
    """
    if key in _known():
        return
    try:
        memory = msgspec.json.decode(saved, type=Memory)
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidRequest(f"The page remembers something else: {error}.") from None
    panel = _make(memory)
    panel.revived(key, memory)
    _panels[key] = panel


def last() -> ChatPanel:
    """The panel that was revived last. Raises LLMKernelError where none was."""
    if not _panels:
        raise LLMKernelError("No panel was reconnected in this kernel.")
    return list(_panels.values())[-1]


def _known() -> set[str]:
    """The ids of the widgets that this kernel has."""
    widgets = sys.modules.get("ipywidgets.widgets.widget")
    return set(_panels) | set(getattr(widgets, "_instances", {}))


def _make(memory: Memory) -> ChatPanel:
    values = dict(memory.values)
    if isinstance(values.get("logit_bias"), dict):  # JSON has names of text alone
        values["logit_bias"] = {int(token): bias for token, bias in values["logit_bias"].items()}
    try:
        return ChatPanel(memory.worker, **values)
    except LLMKernelError:
        return ChatPanel(memory.worker)  # from a page that knows other parameters
