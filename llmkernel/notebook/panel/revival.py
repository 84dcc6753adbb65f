"""A panel made again in a kernel that was restarted, from what the page still knows.

The page calls `revive` when a person presses Reconnect there. The widget gets the id that it
had, so the outputs of the notebook find it again.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from llmkernel.errors import LLMKernelError
from llmkernel.notebook.panel.conversation import ROLES
from llmkernel.notebook.panel.panel import ChatPanel

_panels: dict[str, ChatPanel] = {}


def revive(key: str, saved: str) -> None:
    """The panel `key` with the turns, the draft and the parameters of `saved`, a text in JSON.

    Where this kernel still has it, that one stays as it is. The notebook's variables that held
    the panel are not there any more; `llmkernel.notebook.panel.revival.last()` has it.
    """
    if key in _known():
        return
    was: dict[str, Any] = json.loads(saved)
    panel = _make(was)
    panel.revived(key, str(was.get("name") or ""), _turns(was), str(was.get("draft") or ""))
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


def _make(was: dict[str, Any]) -> ChatPanel:
    values = was.get("values") or {}
    try:
        return ChatPanel(was.get("worker"), system=was.get("system") or None, **values)
    except LLMKernelError:
        return ChatPanel(was.get("worker"))  # from a page that knows other parameters


def _turns(was: dict[str, Any]) -> list[dict[str, Any]]:
    return [turn for turn in was.get("turns") or [] if turn.get("role") in ROLES]
