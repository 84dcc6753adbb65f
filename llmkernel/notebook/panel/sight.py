"""What there is to be seen of a desk, as plain data for the views."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llmkernel.notebook.panel.attachments import Attachment
from llmkernel.notebook.panel.controls import SHOWN, descriptions

if TYPE_CHECKING:
    from llmkernel.notebook.panel.conversation import Conversation, Turn
    from llmkernel.notebook.panel.desk import Desk

View = dict[str, Any]


def of(desk: Desk) -> tuple[View, dict[str, View]]:
    """Named values, and the turns on the shown path by id."""
    current = desk.current
    path = current.path
    state = {
        "name": current.name,
        "conversations": [_entry(each) for each in desk.conversations],
        "path": [turn.id for turn in path],
        "system": current.system,
        "draft": {"text": current.draft, "by": current.draft_by},
        "pending": [chip(each) for each in current.pending],
        "answering": desk.answered.id if desk.answered else None,
        "live": desk.answering.live if desk.answering else None,
        "values": {name: desk.controls.values.get(name) for name in SHOWN},
        "presets": list(desk.controls.presets),
        "controls": descriptions(),
        "worker": desk.workers.view(),
        "workers": desk.workers.running,
        "loading": desk.workers.loading,
        "context": _context(desk),
        "problem": desk.problem,
    }
    return state, {turn.id: _turn(current, turn) for turn in path}


def chip(attachment: Attachment) -> View:
    """An attachment as it is shown: what it is, what it costs, and what it says."""
    return {
        "name": attachment.name,
        "note": attachment.note,
        "tokens": attachment.tokens,
        "text": attachment.text,
    }


def _entry(conversation: Conversation) -> View:
    return {"name": conversation.name, "turns": len(conversation.path)}


def _turn(conversation: Conversation, turn: Turn) -> View:
    branches = conversation.branches(turn.id)
    view: View = {"role": turn.role, "text": turn.text, "state": turn.state}
    view |= {"place": branches.index(turn.id) + 1, "branches": len(branches)}
    if turn.attachments:
        view["attachments"] = [chip(each) for each in turn.attachments]
    if turn.facts:
        view["facts"] = dict(turn.facts)
    if turn.problem:
        view["problem"] = turn.problem
    return view


def _context(desk: Desk) -> View:
    model = desk.workers.model
    if model is None:
        return {"used": desk.attendant.used, "limit": None}
    limit = model.max_prompt_tokens or model.context_length
    return {"used": desk.attendant.used, "limit": limit}
