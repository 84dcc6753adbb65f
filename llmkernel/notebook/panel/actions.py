"""What a view may ask of a desk, one function each.

What is not there any more, or cannot be done now, raises InvalidRequest, which the desk shows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from llmkernel.errors import InvalidRequest
from llmkernel.notebook.panel import archive, attachments, undoing
from llmkernel.notebook.panel.conversation import Conversation, Turn, name_of
from llmkernel.notebook.panel.merging import merged

if TYPE_CHECKING:
    from llmkernel.notebook.panel.desk import Desk


def _turn(desk: Desk, message: Mapping[str, Any]) -> Turn:
    turn = desk.current.turns.get(str(message.get("turn")))
    if turn is None:
        raise InvalidRequest("That turn is not there any more.")
    return turn


def _text(message: Mapping[str, Any], name: str = "text") -> str:
    value = message.get(name, "")
    if not isinstance(value, str):
        raise InvalidRequest(f"{name} must be text.")
    return value


def _send(desk: Desk, message: Mapping[str, Any]) -> None:
    text, start = _text(message), _text(message, "start")
    desk.current.draft, desk.current.start = text, start  # kept where it cannot be sent
    desk.current.draft_by = ""
    desk.ask(text, start)


def _regenerate(desk: Desk, message: Mapping[str, Any]) -> None:
    desk.must_be_free()
    turn = _turn(desk, message)
    desk.answer(desk.current.turns[turn.parent] if turn.parent else None, _text(message, "start"))


def _continue(desk: Desk, message: Mapping[str, Any]) -> None:
    desk.must_be_free()
    turn = _turn(desk, message)
    if turn.role == "assistant":
        desk.go_on(turn)
    else:
        desk.answer(turn, _text(message, "start"))


def _edit(desk: Desk, message: Mapping[str, Any]) -> None:
    said = {"edited": _text(message, "turn"), "by": _text(message, "by"), "taken": False}
    try:
        desk.must_be_free()
        turn = desk.current.rewrite(_turn(desk, message).id, _text(message))
        said["taken"] = True
        if message.get("answer") and turn.role == "user":
            desk.answer(turn)
    finally:
        desk.broadcast.tell(said)  # the view keeps what was typed until then
    desk.attendant.count()


def _branch(desk: Desk, message: Mapping[str, Any]) -> None:
    desk.current.step(_turn(desk, message).id, 1 if message.get("by") == 1 else -1)
    desk.attendant.count()


def _delete(desk: Desk, message: Mapping[str, Any]) -> None:
    turn = _turn(desk, message)
    answered = desk.answered.id if desk.answered is not None else None
    if answered in desk.current.turns and turn in desk.current.up_to(answered):
        desk.must_be_free()
    desk.undo = undoing.delete_turn(desk, turn.id)
    desk.attendant.count()


def _undo(desk: Desk, message: Mapping[str, Any]) -> None:
    undo = desk.undo
    if undo is None or undo.id != _text(message, "id"):
        raise InvalidRequest("It cannot be undone any more: something else has changed since.")
    desk.undo = None
    undo.put_back()
    desk.attendant.count()


def _draft(desk: Desk, message: Mapping[str, Any]) -> None:
    conversation = desk.current
    if "name" in message:  # the view may have moved on since
        conversation = desk.named(_text(message, "name"))
    text = _text(message)
    if "base" in message:  # what the view knew when it was typed; another one may have been faster
        text = merged(_text(message, "base"), text, conversation.draft)
    conversation.draft, conversation.start = text, _text(message, "start")
    conversation.draft_by = _text(message, "by")
    conversation.hear(conversation.draft_by, message.get("n"))
    desk.attendant.count()


def _system(desk: Desk, message: Mapping[str, Any]) -> None:
    desk.current.system = _text(message)
    desk.attendant.count()


def _set(desk: Desk, message: Mapping[str, Any]) -> None:
    values = message.get("values")
    if isinstance(values, Mapping):
        desk.controls.set(values)


def _preset(desk: Desk, message: Mapping[str, Any]) -> None:
    name = _text(message, "name")
    if message.get("keep"):
        desk.controls.keep(name, desk.current.system)
        return
    if message.get("forget"):
        desk.controls.forget(name)
        return
    system = desk.controls.take(name)
    if system is not None:
        desk.current.system = system


def _presets(desk: Desk, _: Mapping[str, Any]) -> None:
    desk.controls.reload()


def _new(desk: Desk, _: Mapping[str, Any]) -> None:
    desk.begin()
    desk.attendant.count()


def _select(desk: Desk, message: Mapping[str, Any]) -> None:
    desk.current = desk.named(_text(message, "name"))
    desk.attendant.count()


def _rename(desk: Desk, message: Mapping[str, Any]) -> None:
    name = _text(message, "name")
    if name.strip() and desk.current.name not in (name.strip(), name_of(name)):
        desk.current.name = desk.free_name(name)


def _forget(desk: Desk, _: Mapping[str, Any]) -> None:
    desk.must_be_free()
    desk.undo = undoing.delete_conversation(desk)
    desk.attendant.count()


def _names(desk: Desk, _: Mapping[str, Any]) -> None:
    desk.broadcast.tell({"names": desk.variable_names()})


def _attach(desk: Desk, message: Mapping[str, Any]) -> None:
    name = _text(message, "name")
    if "text" in message:
        desk.attach(attachments.from_text(name, _text(message), name.rpartition(".")[2]))
    else:
        desk.attach_name(name)


def _detach(desk: Desk, message: Mapping[str, Any]) -> None:
    name = _text(message, "name")
    desk.current.pending = [one for one in desk.current.pending if one.name != name]
    desk.attendant.count()


def _export(desk: Desk, message: Mapping[str, Any]) -> None:
    kind = "md" if message.get("kind") == "md" else "json"
    write = archive.to_markdown if kind == "md" else archive.to_json
    name = f"{desk.current.name}.{kind}"
    desk.broadcast.tell(
        {"file": name, "text": write(desk.current), "to": _text(message, "to"), "kind": kind}
    )


def _import(desk: Desk, message: Mapping[str, Any]) -> None:
    text = _text(message)
    trial = Conversation("")
    archive.load(text, trial)  # raises before anything is changed
    taken = desk.begin(trial.name or "Imported")
    name = taken.name
    archive.load(text, taken)
    taken.name = name
    desk.attendant.count()


def _worker(desk: Desk, message: Mapping[str, Any]) -> None:
    desk.workers.choose(_text(message, "name"))
    desk.attendant.count()


def _start(desk: Desk, message: Mapping[str, Any]) -> None:
    desk.workers.start(_text(message, "model"), desk.start_went_on)


def _cancel_start(desk: Desk, _: Mapping[str, Any]) -> None:
    desk.workers.loading = None


def _reconnect(desk: Desk, _: Mapping[str, Any]) -> None:
    desk.workers.again(desk.start_went_on)
    desk.attendant.count()


def _look(desk: Desk, _: Mapping[str, Any]) -> None:
    desk.attendant.look()


ACTIONS: dict[str, Callable[[Desk, Mapping[str, Any]], None]] = {
    "send": _send,
    "regenerate": _regenerate,
    "continue": _continue,
    "edit": _edit,
    "branch": _branch,
    "delete": _delete,
    "undo": _undo,
    "draft": _draft,
    "system": _system,
    "set": _set,
    "preset": _preset,
    "presets": _presets,
    "new": _new,
    "select": _select,
    "rename": _rename,
    "forget": _forget,
    "names": _names,
    "attach": _attach,
    "detach": _detach,
    "export": _export,
    "import": _import,
    "look": _look,
    "worker": _worker,
    "start": _start,
    "cancel_start": _cancel_start,
    "reconnect": _reconnect,
}
"""What a view may ask for, by what it calls it."""
UNLOCKED = {"attach", "names"}
"""What reads variables and files of any size; it takes the desk's lock itself where it must."""
SILENT = {"draft", "look", "names", "export", "presets"}
"""What takes no problem off the page: a person did not mean to."""
