"""What there is to be seen of a desk, as plain data for the views."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from llmkernel.notebook.panel.attachments import Attachment
from llmkernel.notebook.panel.controls import SHOWN, descriptions

if TYPE_CHECKING:
    from llmkernel.notebook.panel.conversation import Conversation, Turn
    from llmkernel.notebook.panel.desk import Desk

View = dict[str, Any]


def of(desk: Desk) -> tuple[View, dict[str, View]]:
    """Named values, and all turns by id.

    What is not shown is there too: the page is what remembers it when the kernel is restarted.
    """
    current = desk.current
    path = current.path
    state = {
        "name": current.name,
        "conversations": [_entry(each) for each in desk.conversations],
        "aside": {each.name: _aside(each) for each in desk.conversations if each is not current},
        "path": [turn.id for turn in path],
        "system": current.system,
        "draft": {
            "text": current.draft,
            "start": current.start,
            "by": current.draft_by,
            "heard": dict(current.heard),
        },
        "pending": [chip(each) for each in current.pending],
        "answering": desk.answered.id if desk.answered else None,
        "live": desk.live,
        "clicks_wait": bool(desk.clicks_wait),
        "values": {name: desk.controls.values.get(name) for name in SHOWN},
        "further": {k: v for k, v in desk.controls.values.items() if k not in SHOWN},
        "presets": list(desk.controls.presets),
        "own_presets": desk.controls.own,
        "controls": descriptions(),
        "worker": desk.workers.view(),
        "workers": desk.workers.running,
        "loading": desk.workers.loading,
        "context": _context(desk),
        "problem": desk.problem,
        "undo": {"id": desk.undo.id, "words": desk.undo.words} if desk.undo else None,
    }
    return state, {turn: view for each in desk.conversations for turn, view in _turns(each)}


def chip(attachment: Attachment) -> View:
    """An attachment as it is shown: what it is, what it costs, and what it says."""
    return {
        "name": attachment.name,
        "kind": attachment.kind,
        "note": attachment.note,
        "tokens": attachment.tokens,
        "text": attachment.text,
    }


def _entry(conversation: Conversation) -> View:
    turns = len(conversation.path)
    return {"name": conversation.name, "turns": turns, "prefix": conversation.prefix}


def _aside(conversation: Conversation) -> View:
    """What waits in a conversation that is not shown."""
    view: View = {"system": conversation.system, "draft": conversation.draft}
    view |= {"start": conversation.start, "pending": [chip(each) for each in conversation.pending]}
    return view


def _turns(conversation: Conversation) -> Iterator[tuple[str, View]]:
    for turn in conversation.turns.values():
        yield turn.id, _turn(conversation, turn)


def _turn(conversation: Conversation, turn: Turn) -> View:
    branches = conversation.branches(turn.id)
    view: View = {"role": turn.role, "text": turn.text, "state": turn.state}
    view |= {"place": branches.index(turn.id) + 1, "branches": len(branches)}
    view |= {"parent": turn.parent, "shown": conversation.is_shown(turn.id)}
    if turn.attachments:
        view["attachments"] = [chip(each) for each in turn.attachments]
    if turn.facts:
        view["facts"] = dict(turn.facts)
    if turn.edited:
        view["edited"] = True
    if turn.problem:
        view["problem"] = turn.problem
    return view


def _context(desk: Desk) -> View:
    model = desk.workers.model
    if model is None:
        return {"used": desk.attendant.used, "limit": None}
    limit = model.max_prompt_tokens or model.context_length
    return {"used": desk.attendant.used, "limit": limit}
