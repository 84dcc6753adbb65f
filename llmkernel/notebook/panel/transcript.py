"""What stays of a panel in a saved notebook: the shown turns, as HTML, Markdown and text.

It stands under the panel and is hidden while one lives (see panel-js/src/host.js). Styles are
in attributes: a notebook of somebody else is shown without `<style>`.
"""

from __future__ import annotations

from llmkernel.notebook import hypertext
from llmkernel.notebook.hypertext import element, literal
from llmkernel.notebook.inline import escape
from llmkernel.notebook.markdown import fence, safe
from llmkernel.notebook.panel.conversation import Conversation, Turn
from llmkernel.notebook.tables import HTML, MARKDOWN, PLAIN, Bundle
from llmkernel.notebook.untrusted import plain

CLASS = "llmk-static"
_FRAME = "border:1px solid rgba(128,128,128,0.35);border-radius:8px;padding:0.4em 1em 0.7em"
_LABEL = "font-size:0.85em;font-weight:600;opacity:0.75;margin:0.9em 0 0.2em"
_QUESTION = "background-color:rgba(128,128,128,0.12);border-radius:8px;padding:0.5em 0.8em"
_TYPED = "white-space:pre-wrap;overflow-wrap:anywhere"
_QUOTED = "font-size:0.85em;opacity:0.85;margin:0.3em 0"
_QUOTED_TEXT = "overflow:auto;max-height:16em;margin:0.4em 0 0.6em;padding:0.5em 0.7em;border-radius:6px;background-color:rgba(128,128,128,0.12)"
_TITLES = {"user": "You", "assistant": "Model"}
_EMPTY = "Nothing has been said yet."


def transcript(conversation: Conversation, classes: str = CLASS) -> Bundle:
    """The conversation as one output."""
    path = conversation.path
    parts = [literal(conversation.name, "div", style=_LABEL)]
    parts += [_html(turn) for turn in path] or [literal(_EMPTY, "div")]
    head = escape(conversation.name)
    return {
        HTML: element("div", "".join(parts), style=_FRAME, classes=classes),
        MARKDOWN: "\n\n".join([f"**{head}**", *(map(_markdown, path) if path else [_EMPTY])]),
        PLAIN: "\n\n".join([plain(conversation.name), *(map(_plain, path) if path else [_EMPTY])]),
    }


def fingerprint(conversation: Conversation) -> tuple[object, ...]:
    """Differs where the transcript does; cheaper to make."""
    path = conversation.path
    return (conversation.name, *((turn.id, turn.state, len(turn.text)) for turn in path))


def _html(turn: Turn) -> str:
    asked = turn.role == "user"
    # what a person typed stands as it was typed, as in the panel; paragraphs would bring margins
    body = (
        literal(turn.text, "div", style=_TYPED)
        if asked
        else hypertext.of({MARKDOWN: safe(turn.text)})
    )
    quoted = "".join(
        element("details", _summary(one.name, one.note) + _code(one.text), style=_QUOTED)
        for one in turn.attachments
    )
    style = _QUESTION if asked else ""
    note = literal(_note(turn), "div", style=_QUOTED) if _note(turn) else ""
    label = element("div", _title(turn), style=_LABEL)
    return label + element("div", quoted + body, style=style) + note


def _markdown(turn: Turn) -> str:
    parts = [f"**{_title(turn)}**"]
    parts += [
        f"{escape(f'{one.name} ({one.note})')}\n\n{fence(one.text, one.kind)}"
        for one in turn.attachments
    ]
    parts.append(safe(turn.text))
    if _note(turn):
        parts.append(f"*{escape(_note(turn))}*")
    return "\n\n".join(parts)


def _plain(turn: Turn) -> str:
    quoted = "".join(f"[{one.name}: {one.note}]\n" for one in turn.attachments)
    note = f"\n({_note(turn)})" if _note(turn) else ""
    return f"{_title(turn)}: {quoted}{plain(turn.text)}{note}"


def _title(turn: Turn) -> str:
    return _TITLES[turn.role] + (" (edited)" if turn.edited else "")


def _note(turn: Turn) -> str:
    """How an answer ended where it did not end by itself."""
    if turn.state == "failed":
        return f"broken off: {turn.problem}" if turn.problem else "broken off"
    return {"stopped": "stopped", "running": "being written"}.get(turn.state, "")


def _summary(name: str, note: str) -> str:
    return element("summary", hypertext.text(f"{name} ({note})"))


def _code(text: str) -> str:
    return literal(text, "pre", style=_QUOTED_TEXT)
