"""What Python gives a panel that is of another kind, and faults that nobody thought of."""

from __future__ import annotations

import threading

import pytest

from llmkernel import ChatPanel
from llmkernel.errors import InvalidRequest
from llmkernel.notebook.panel.controls import Controls
from llmkernel.notebook.panel.desk import Desk
from llmkernel.notebook.panel.workers import Workers
from tests.conftest import wait_until

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def panel(runtime_dir):
    made = ChatPanel()
    yield made
    made.close()


@pytest.fixture
def desk(runtime_dir):
    made = Desk(Workers(), Controls(), dict, lambda _: None)
    yield made
    made.close()


def set_to(name, value):
    return lambda panel: setattr(panel, name, value)


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        (set_to("system", 5), "system must be text, not int"),
        (set_to("name", 5), "name must be text, not int"),
        (set_to("name", None), "name must be text, not None"),
        (set_to("params", None), "params must be a dict"),
        (set_to("params", {5: 1}), "params must be a dict"),
        (set_to("conversation", None), "conversation must be a list of messages, not None"),
        (set_to("conversation", 5), "conversation must be a list of messages, not int"),
        (lambda panel: panel.ask(5), "The question must be text, not int"),
        (lambda panel: panel.ask("x", start=5), "start must be text, not int"),
        (lambda panel: panel.attach(5, name=7), "name must be text, not int"),
        (lambda panel: panel.attach(5), "Give the value a name"),
        (lambda panel: panel.attach("x", name=" "), "Give the value a name"),
    ],
)
def test_a_value_of_another_kind_is_refused_by_name(panel, wrong, named):
    with pytest.raises(InvalidRequest, match=named):
        wrong(panel)
    assert (panel.name, panel.system, panel.params) == ("Conversation 1", "", {})
    assert panel.conversation == []
    assert not panel._desk.current.pending


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"worker": 5}, "The worker must be the name of one, or a Client, not int"),
        ({"worker": []}, "The worker must be"),
        ({"system": 5}, "system must be text"),
        ({"conversation": 5}, "conversation must be a list of messages"),
    ],
)
def test_so_are_those_that_a_panel_is_made_with(runtime_dir, given, named):
    with pytest.raises(InvalidRequest, match=named):
        ChatPanel(**given)


def test_no_system_text_may_be_none(panel):
    panel.system = "Be brief."
    panel.system = None
    assert panel.system == ""


def test_a_fault_while_sending_is_shown_and_keeps_what_was_typed(desk, monkeypatch):
    desk.take({"do": "attach", "name": "notes.txt", "text": "attached"})

    def broken(*_):
        raise AttributeError("a fault")

    monkeypatch.setattr(desk, "answer", broken)
    desk.take({"do": "send", "text": "typed"})
    assert "AttributeError: a fault" in desk.problem["text"]
    assert desk.current.draft == "typed"
    assert [one.name for one in desk.current.pending] == ["notes.txt"]
    assert desk.current.path == []
    assert desk.answering is None


def test_a_fault_in_an_answer_ends_it(desk, monkeypatch):
    def broken(_):
        raise AttributeError("a fault")

    monkeypatch.setattr(desk.workers, "client_when_ready", broken)
    desk.take({"do": "send", "text": "typed"})
    wait_until(lambda: desk.answering is None, seconds=10, what="the end")
    assert desk.current.path[-1].state == "failed"
    assert "AttributeError: a fault" in desk.problem["text"]


def test_the_attendant_survives_a_fault(desk, monkeypatch):
    looked = threading.Event()

    def broken():
        raise AttributeError("a fault")

    monkeypatch.setattr(desk.workers, "look", broken)
    desk.attendant.look()
    wait_until(lambda: desk.problem, seconds=10, what="a word of it")
    assert "AttributeError: a fault" in desk.problem["text"]
    monkeypatch.setattr(desk.workers, "look", looked.set)
    desk.attendant.look()
    assert looked.wait(10)


def test_files_come_back_as_they_were_and_another_coding_is_named(panel, tmp_path):
    said = [{"role": "user", "content": "a\rb\r\nc\n"}, {"role": "assistant", "content": "```"}]
    panel.conversation = said
    for name in ("talk.md", "talk.json"):
        panel.save(tmp_path / name)
        panel.load(tmp_path / name)
        assert panel.conversation == said
    (tmp_path / "other.md").write_text("## You\n\nHi", encoding="utf-16")
    with pytest.raises(InvalidRequest, match=r"other\.md is no text in UTF-8"):
        panel.load(tmp_path / "other.md")


@pytest.mark.parametrize("name", ["A" * 100, "A" * 59 + " B", " talk\t", "\u202egnp", "one\ntwo"])
def test_the_same_name_is_the_same_conversation(panel, name):
    panel.name = name
    first = panel.name
    panel.name = "another"
    panel.name = name
    assert panel.name == first
    panel._desk.take({"do": "rename", "name": name})
    assert panel.name == first
    assert len(panel.conversations) == 3


def test_the_repr_of_the_widget_is_the_same_in_every_run(panel):
    assert repr(panel.widget) == "PanelWidget()"
    assert panel.widget._repr_mimebundle_()[0]["text/plain"] == "PanelWidget()"
