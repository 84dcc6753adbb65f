"""The desk of a panel with a real worker: asking, stopping, branches, failures; no front end."""

from __future__ import annotations

import itertools
import json
import os
import signal
import threading
import time
from types import SimpleNamespace

import pytest

from llmkernel import Client
from llmkernel.errors import InvalidRequest
from llmkernel.notebook.panel import archive
from llmkernel.notebook.panel.controls import Controls
from llmkernel.notebook.panel.desk import Desk
from llmkernel.notebook.panel.merging import merged
from llmkernel.notebook.panel.queueing import Place
from llmkernel.notebook.panel.workers import Workers
from llmkernel.protocol import Load
from tests.conftest import wait_until

pytestmark = pytest.mark.timeout(90)

SLOW = "scripted:step_ms=10,eos_after=1500"


class Views:
    """What all views of a desk show: every message in order, and the state that they make."""

    def __init__(self):
        self.messages, self.state, self.turns, self.told = [], {}, {}, []

    def take(self, message):
        if "n" not in message or "whole" in message:
            self.told.append(message)
            return
        assert message["n"] == len(self.messages) + 1
        self.messages.append(message)
        self.state |= message.get("set", {})
        self.turns |= message.get("turns", {})
        for turn, part in message.get("change", {}).items():
            merged = (self.turns[turn] | part).items()
            self.turns[turn] = {
                name: value for name, value in merged if part.get(name, 0) is not None
            }
        for gone in message.get("gone", []):
            del self.turns[gone]
        if "add" in message:
            self.turns[message["turn"]]["text"] += message["add"]

    @property
    def path(self):
        return [self.turns[turn] for turn in self.state["path"]]


@pytest.fixture
def make(runtime_dir):
    """Makes desks over whatever workers run."""
    desks = []

    def one(worker=None, variables=None, **params):
        views = Views()
        desk = Desk(Workers(worker), Controls(**params), lambda: variables or {}, views.take)
        desks.append(desk)
        desk.show()
        return SimpleNamespace(desk=desk, views=views, take=desk.take)

    yield one
    for desk in desks:
        desk.close()


def rest(panel):
    wait_until(lambda: panel.desk.answering is None, seconds=20, what="the end of the answer")


def test_a_question_is_answered_and_the_views_have_all_of_it(make, scripted_worker):
    panel = make(temperature=0, max_tokens=40)
    panel.take({"do": "send", "text": "Hi"})
    rest(panel)
    question, answer = panel.views.path
    with Client(scripted_worker) as client:
        asked = client.chat("Hi", temperature=0, max_tokens=40)
    assert (question["text"], answer["text"]) == ("Hi", asked.text)
    assert answer["state"] == "done"
    assert answer["facts"]["tokens"] == asked.usage.completion_tokens
    assert answer["facts"]["prompt"] == asked.usage.prompt_tokens


def test_nothing_returns_late_and_updates_are_at_most_25_a_second(make, start_worker):
    start_worker(SLOW)
    panel = make(max_tokens=150)
    began = time.monotonic()
    panel.take({"do": "send", "text": "Hi"})
    assert time.monotonic() - began < 0.5
    rest(panel)
    seconds = time.monotonic() - began
    deltas = [message for message in panel.views.messages if "add" in message]
    assert 5 < len(deltas) <= 25 * seconds + 2


def test_stop_keeps_the_text_and_frees_the_worker(make, start_worker):
    worker = start_worker(SLOW)
    panel = make()
    panel.take({"do": "send", "text": "Hi"})
    wait_until(lambda: panel.desk.answered.text, seconds=10, what="text")
    panel.desk.lock.acquire()  # somebody is busy in the desk
    try:
        began = time.monotonic()
        panel.desk.stop()
        assert time.monotonic() - began < 0.1
    finally:
        panel.desk.lock.release()
    rest(panel)
    assert panel.views.path[-1]["state"] == "stopped"
    assert panel.views.path[-1]["text"]
    with Client(worker) as client:
        wait_until(lambda: client.status().load.running == 0, seconds=5, what="the worker")


def test_an_answer_can_be_made_again_continued_edited_and_taken_away(make, scripted_worker):
    panel = make(seed=1, max_tokens=6)
    panel.take({"do": "send", "text": "Hi", "start": "So "})
    rest(panel)
    first = panel.views.path[-1]["text"]
    assert first.startswith("So ")
    answer = panel.views.state["path"][-1]
    panel.take({"do": "continue", "turn": answer})
    rest(panel)
    assert panel.views.path[-1]["text"].startswith(first)
    assert len(panel.views.path[-1]["text"]) > len(first)
    panel.take({"do": "regenerate", "turn": answer})
    rest(panel)
    assert (panel.views.path[-1]["place"], panel.views.path[-1]["branches"]) == (2, 2)
    panel.take({"do": "edit", "turn": panel.views.state["path"][0], "text": "Ho", "answer": True})
    rest(panel)
    assert panel.views.path[0]["text"] == "Ho"
    assert len(panel.views.path) == 2
    panel.take({"do": "delete", "turn": panel.views.state["path"][0]})
    assert panel.views.path[0]["text"] == "Hi"
    assert panel.views.state["problem"] is None


def test_what_was_deleted_comes_back_as_it_was_until_something_else_changes(make, scripted_worker):
    panel = make(seed=1, max_tokens=6)
    for text in ("One", "Two"):
        panel.take({"do": "send", "text": text})
        rest(panel)
    first, answer = panel.views.state["path"][:2]
    panel.take({"do": "regenerate", "turn": answer})
    rest(panel)
    panel.take({"do": "branch", "turn": panel.views.state["path"][1], "by": -1})
    before, path = archive.to_json(panel.desk.current), panel.views.state["path"]
    for turn, words in ((first, "Deleted 5 turns."), (path[3], "Deleted 1 turn.")):
        panel.take({"do": "delete", "turn": turn})
        panel.take({"do": "draft", "text": "typing is no change", "by": "me"})
        assert panel.views.state["undo"] == {"id": turn, "words": words}
        panel.take({"do": "undo", "id": turn})
        assert archive.to_json(panel.desk.current) == before
        assert panel.views.state["path"] == path
        assert panel.views.state["undo"] is None
    panel.take({"do": "delete", "turn": path[3]})
    panel.take({"do": "system", "text": "Be brief."})
    assert panel.views.state["undo"] is None
    panel.take({"do": "undo", "id": path[3]})
    assert "any more" in panel.views.state["problem"]["text"]
    assert panel.views.state["path"] == path[:3]


def test_a_deleted_conversation_comes_back_where_it_was(make):
    panel = make()
    for _ in range(2):
        panel.take({"do": "new"})
    names = [each["name"] for each in panel.views.state["conversations"]]
    for name in names:
        panel.take({"do": "select", "name": name})
        panel.take({"do": "forget"})
        assert panel.views.state["undo"]["words"] == f"Deleted {name}."
        panel.take({"do": "undo", "id": panel.views.state["undo"]["id"]})
        assert panel.views.state["name"] == name
        assert [each["name"] for each in panel.views.state["conversations"]] == names
    alone = make()
    alone.take({"do": "forget"})
    alone.take({"do": "undo", "id": alone.views.state["undo"]["id"]})
    assert [each["name"] for each in alone.views.state["conversations"]] == ["Conversation 1"]


def test_a_failure_is_told_and_what_came_is_kept(make, start_worker):
    start_worker("scripted:step_ms=5,eos_after=900,fail_at_step=20")
    panel = make()
    panel.take({"do": "send", "text": "Hi"})
    rest(panel)
    assert panel.views.path[-1]["state"] == "failed"
    assert panel.views.path[-1]["text"]
    assert panel.views.state["problem"]["text"]
    assert not panel.views.state["problem"]["lost"]


def test_a_worker_that_dies_is_told_and_reconnect_starts_it_again(make, start_worker):
    worker = start_worker(SLOW, name="short-lived")
    panel = make()
    panel.take({"do": "send", "text": "Hi"})
    wait_until(lambda: panel.desk.answered.text, seconds=10, what="text")
    os.kill(worker.pid, signal.SIGKILL)
    rest(panel)
    assert panel.views.state["problem"]["lost"]
    panel.take({"do": "reconnect"})
    panel.take({"do": "send", "text": "Again"})  # waits for the start
    wait_until(
        lambda: panel.desk.answered and panel.desk.answered.text, seconds=60, what="the answer"
    )
    panel.take({"do": "stop"})
    rest(panel)
    panel.desk.workers.client().stop(drain=False)


def test_without_a_worker_it_says_what_to_do_and_keeps_the_question(make):
    panel = make()
    panel.take({"do": "send", "text": "Hi"})
    rest(panel)
    assert "No worker" in panel.views.state["problem"]["text"]
    assert panel.views.path[0]["text"] == "Hi"


def test_a_worker_that_does_not_run_is_said_with_those_that_do(make, scripted_worker):
    panel = make("foo")
    panel.desk.attendant.look()
    why = f"No worker 'foo' runs. Running: {scripted_worker.name}."
    wait_until(lambda: panel.views.state["worker"].get("why") == why, seconds=10, what="the reason")
    panel.take({"do": "worker", "name": scripted_worker.name})
    wait_until(lambda: panel.views.state["worker"]["state"] == "ready", seconds=10, what="it")
    assert "why" not in panel.views.state["worker"]


def test_a_prompt_that_does_not_fit_goes_back_where_it_was_typed(make, start_worker):
    start_worker("scripted:context_length=128")
    panel = make(variables={"x": "data"})
    panel.take({"do": "attach", "name": "x"})
    panel.take({"do": "send", "text": "many words " * 50})
    rest(panel)
    assert panel.views.path == []
    assert panel.views.state["draft"]["text"] == "many words " * 50
    assert [chip["name"] for chip in panel.views.state["pending"]] == ["x"]
    assert "128" in panel.views.state["problem"]["text"]


def test_how_the_reply_starts_is_kept_with_its_question_counted_and_given_back(make, start_worker):
    start_worker("scripted:context_length=128")
    panel = make()
    panel.take({"do": "draft", "text": "Why?", "by": "me"})
    wait_until(lambda: panel.views.state["context"]["used"], seconds=10, what="a count")
    before = panel.views.state["context"]["used"]
    panel.take({"do": "draft", "text": "Why?", "start": "Sure: ", "by": "me"})
    wait_until(
        lambda: panel.views.state["context"]["used"] == before + 6, seconds=10, what="a count"
    )
    panel.take({"do": "new"})
    assert panel.views.state["draft"]["start"] == ""
    assert panel.views.state["aside"]["Conversation 1"]["start"] == "Sure: "
    panel.take({"do": "select", "name": "Conversation 1"})
    panel.take({"do": "send", "text": "many words " * 50, "start": "Sure: "})
    rest(panel)
    assert panel.views.path == []
    assert panel.views.state["draft"] == {
        "text": "many words " * 50,
        "start": "Sure: ",
        "by": "",
        "heard": {},
    }


def test_an_answer_that_cannot_go_on_because_all_is_full_stays(make, start_worker):
    start_worker("scripted:context_length=128")
    panel = make()
    said = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "words " * 40}]
    panel.desk.current.replace(said)
    panel.take({"do": "continue", "turn": panel.desk.current.path[-1].id})
    rest(panel)
    assert panel.desk.current.messages() == said
    assert "128" in panel.views.state["problem"]["text"]
    panel.take({"do": "regenerate", "turn": panel.desk.current.path[-1].id})
    rest(panel)
    assert panel.desk.current.messages()[0] == said[0]


def test_the_cost_of_a_draft_and_of_what_is_attached_is_counted(make, scripted_worker):
    panel = make(variables={"x": "data"})
    panel.take({"do": "attach", "name": "x"})
    wait_until(lambda: panel.views.state["context"]["used"], seconds=10, what="a count")
    before = panel.views.state["context"]["used"]
    panel.take({"do": "draft", "text": "ten bytes.", "by": "me"})
    wait_until(
        lambda: panel.views.state["context"]["used"] == before + 10, seconds=10, what="a count"
    )
    assert panel.views.state["pending"][0]["tokens"] > 4
    assert panel.views.state["draft"] == {
        "text": "ten bytes.",
        "start": "",
        "by": "me",
        "heard": {},
    }


@pytest.mark.parametrize(
    "message",
    [
        {},
        {"do": "nothing"},
        {"do": "send"},
        {"do": "send", "text": 3},
        {"do": "edit", "turn": "gone", "text": "x"},
        {"do": "delete"},
        {"do": "select", "name": "gone"},
        {"do": "set", "values": {"temperature": "hot"}},
        {"do": "set", "values": {"n": 4}},
        {"do": "import", "text": "{"},
        {"do": "attach", "name": "gone"},
        {"do": "preset", "name": "gone"},
        {"do": "worker", "name": "gone"},
    ],
)
def test_nonsense_from_a_page_changes_nothing(make, message):
    panel = make()
    panel.take(message)
    assert panel.views.path == []
    assert panel.desk.controls.values == {}
    assert len(panel.desk.conversations) == 1


def test_a_file_that_cannot_be_imported_gets_no_hint_for_programs(make):
    panel = make()
    panel.take({"do": "import", "text": '{"cells": []}'})
    problem = panel.views.state["problem"]
    assert "`format`" in problem["text"]
    assert "exported can be read" in problem["text"]
    assert problem["hint"] == ""


def test_what_is_refused_says_so_once(make):
    panel = make()
    panel.take({"do": "set", "values": {"max_tokens": 1.5}})
    problem = panel.views.state["problem"]
    assert problem["text"] == "max_tokens must be a whole number, not a fraction."
    assert problem["hint"] == ""
    before = len(panel.views.messages)
    panel.take({"do": "set", "values": {"max_tokens": 1.5}})
    news = [message for message in panel.views.messages[before:] if "problem" in message["set"]]
    assert news, "a field that shows a refused value must hear that it was refused again"


def test_a_turn_can_be_deleted_while_another_conversation_is_answered(make, start_worker):
    start_worker(SLOW)
    panel = make()
    panel.desk.current.add("user", "old", None)
    panel.take({"do": "new"})
    panel.take({"do": "send", "text": "Hi"})
    panel.take({"do": "select", "name": "Conversation 1"})
    panel.take({"do": "delete", "turn": panel.views.state["path"][0]})
    assert (panel.views.path, panel.views.state["problem"]) == ([], None)
    assert panel.desk.answering is not None
    panel.take({"do": "stop"})
    rest(panel)


class Slow:
    """A value that says what it is when it is told to."""

    def __init__(self):
        self.asked, self.go = threading.Event(), threading.Event()

    def __repr__(self):
        self.asked.set()
        self.go.wait(20)
        return "slow"


def test_attaching_holds_nobody_up_and_goes_where_it_was_asked(make):
    slow = Slow()
    panel = make(variables={"slow": slow})
    attaching = threading.Thread(target=panel.take, args=[{"do": "attach", "name": "slow"}])
    attaching.start()
    try:
        assert slow.asked.wait(10)
        assert panel.desk.lock.acquire(timeout=5)
        panel.desk.lock.release()
        panel.take({"do": "new"})
    finally:
        slow.go.set()
        attaching.join(10)
    first, second = panel.desk.conversations
    assert [one.text for one in first.pending] == ["slow"]
    assert second.pending == []


def test_only_one_answer_at_a_time(make, start_worker):
    start_worker(SLOW)
    panel = make()
    panel.take({"do": "send", "text": "Hi"})
    panel.take({"do": "send", "text": "And"})
    assert "Stop it first" in panel.views.state["problem"]["text"]
    assert panel.views.state["draft"]["text"] == "And"
    with pytest.raises(InvalidRequest):
        panel.desk.ask("And")
    assert len(panel.views.path) == 2


def test_a_view_is_told_whether_its_edit_was_taken(make, start_worker):
    start_worker(SLOW)
    panel = make()
    panel.take({"do": "send", "text": "Hi"})
    edit = {"do": "edit", "turn": panel.views.state["path"][0], "text": "Ho", "by": "me"}
    panel.take(edit)
    said = {"edited": edit["turn"], "by": "me"}
    assert panel.views.told == [said | {"taken": False}]
    panel.take({"do": "stop"})
    rest(panel)
    panel.take(edit)
    assert panel.views.told[-1] == said | {"taken": True}
    panel.take(edit | {"turn": "gone"})
    assert panel.views.told[-1] == {"edited": "gone", "by": "me", "taken": False}


def test_no_turn_has_an_id_of_another_panel(make):
    prefixes = {make().views.state["conversations"][0]["prefix"] for _ in range(2)}
    assert len(prefixes) == 2


def test_conversations_come_and_go_and_names_are_their_own(make):
    panel = make()
    panel.take({"do": "system", "text": "Be brief."})
    panel.take({"do": "new"})
    assert panel.views.state["system"] == "Be brief."
    panel.take({"do": "rename", "name": "Conversation 1"})
    assert panel.views.state["name"] == "Conversation 1 (2)"
    panel.take({"do": "select", "name": "Conversation 1"})
    panel.take({"do": "forget"})
    panel.take({"do": "forget"})
    assert len(panel.views.state["conversations"]) == 1


@pytest.mark.parametrize("name", ["\u200b\u200b", "\u2060 \u200d", "\x00"])
def test_no_conversation_has_a_name_that_cannot_be_seen(make, name):
    panel = make()
    panel.take({"do": "rename", "name": name})
    assert panel.views.state["name"] == "Conversation"


def test_a_late_view_is_told_everything_with_its_number(make, scripted_worker):
    panel = make(max_tokens=5)
    panel.take({"do": "send", "text": "Hi"})
    rest(panel)
    panel.take({"do": "sync"})
    whole = panel.views.told[-1]
    assert whole["n"] >= len(panel.views.messages) - 1
    assert whole["turns"] == panel.views.turns


def test_the_place_in_the_queue_and_the_figures_so_far_are_shown(make, start_worker):
    worker = start_worker("scripted:step_ms=10,eos_after=400", max_concurrent=1)
    with Client(worker) as client:
        others = [client.stream("x") for _ in range(3)]
        next(iter(others[0]))
        panel = make()
        panel.take({"do": "send", "text": "Hi"})
        wait_until(
            lambda: (panel.views.state["live"] or {}).get("ahead") == 2, seconds=10, what="a place"
        )
        for other in others:
            other.close()
        wait_until(
            lambda: (panel.views.state["live"] or {}).get("rate"), seconds=10, what="figures"
        )
        panel.take({"do": "stop"})
        rest(panel)
    assert panel.views.state["live"] is None


def test_the_place_moves_up_as_others_end_and_not_for_those_who_come_later(make, start_worker):
    worker = start_worker("scripted:step_ms=10,eos_after=150", max_concurrent=1)
    with Client(worker) as client:
        others = [client.stream("x") for _ in range(3)]
        next(iter(others[0]))
        panel = make()
        panel.take({"do": "send", "text": "Hi"})
        wait_until(
            lambda: (panel.views.state["live"] or {}).get("ahead") == 2, seconds=10, what="a place"
        )
        later = [client.stream("x") for _ in range(4)]
        wait_until(lambda: client.status().load.waiting > 5, seconds=10, what="those behind it")
        rest(panel)
        lives = [m["set"]["live"] or {} for m in panel.views.messages if "live" in m.get("set", {})]
        places = [live["ahead"] for live in lives if "ahead" in live]
        for stream in (*others, *later):
            stream.close()
    assert [place for place, _ in itertools.groupby(places)] in ([2, 1, 0], [2, 1])


def test_an_old_report_says_nothing_of_a_place():
    load = lambda ended, waiting: SimpleNamespace(  # noqa: E731
        load=Load(requests_finished=ended, waiting=waiting)
    )
    place, old = Place(), load(10, 0)
    assert place.ahead(5, old) == 5
    assert place.ahead(5, old) == 5
    assert place.ahead(5, load(20, 9)) == 5, "the first after it is where counting begins"
    assert place.ahead(5, load(22, 9)) == 3
    assert place.ahead(5, load(22, 3)) == 2, "no more are ahead than wait beside it"
    assert place.ahead(5, load(22, 9)) == 2, "who comes later stands behind"
    assert place.ahead(5, load(40, 9)) == 0
    assert Place().ahead(3, None) == 3


def test_half_a_character_does_not_break_what_views_are_sent(make, scripted_worker):
    panel = make(max_tokens=5)
    half = '[{"role": "user", "content": "\\ud800"}]'
    for message in (
        {"do": "draft", "text": "a\ud800", "by": "me\ud800"},
        {"do": "rename", "name": "\ud800"},
        {"do": "system", "text": "\ud800"},
        {"do": "import", "text": half},
        {"do": "attach", "name": "\ud800", "text": "b\ud800"},
        {"do": "attach", "name": "\ud800"},
        {"do": "send", "text": "c\ud800"},
    ):
        panel.take(message)
    rest(panel)
    json.dumps(panel.desk.broadcast.whole(), ensure_ascii=False).encode()
    assert panel.views.path[-1]["state"] == "done"
    assert panel.views.path[-2]["text"] == "c\ufffd"


def test_a_start_that_failed_is_said_where_everybody_looks(make, scripted_worker):
    panel = make()
    panel.take({"do": "start", "model": "/nobody/has/this"})
    wait_until(lambda: panel.views.state["problem"], seconds=20, what="what went wrong")
    assert "There is no folder /nobody/has/this" in panel.views.state["problem"]["text"]
    panel.take({"do": "start", "model": "scripted:load_ms=20000"})
    assert panel.views.state["problem"] is None
    panel.take({"do": "cancel_start"})
    started = lambda: [one for one in threading.enumerate() if one.name == "llmkernel-panel-start"]  # noqa: E731
    wait_until(lambda: not started(), seconds=20, what="its end")
    assert panel.views.state["loading"] is None
    assert panel.views.state["problem"] is None


def test_what_two_views_type_at_once_is_one_draft(make):
    panel = make()
    panel.take({"do": "draft", "text": "one ", "base": "", "by": "left", "n": 1})
    panel.take({"do": "draft", "text": "two ", "base": "", "by": "right", "n": 1})
    panel.take({"do": "draft", "text": "two three ", "base": "two ", "by": "right", "n": 2})
    draft = panel.views.state["draft"]
    assert draft["text"] == "one two three "
    assert draft["heard"] == {"left": 1, "right": 2}
    for number in range(50):
        panel.take({"do": "draft", "text": "x", "by": f"view {number}", "n": 1})
    heard = panel.views.state["draft"]["heard"]
    assert list(heard) == [f"view {number}" for number in range(50 - len(heard), 50)]
    assert len(heard) < 40


@pytest.mark.parametrize(
    ("before", "mine", "theirs", "both"),
    [
        ("", "mine", "theirs", "theirsmine"),
        ("a c", "a b c", "a c d", "a b c d"),
        ("a c", "a c d", "a b c", "a b c d"),
        ("one two", "two", "one two three", "two three"),
        ("same", "same", "other", "other"),
        ("a", "ab", "ab", "ab"),
        ("word", "wind", "wand", "wanind"),
    ],
)
def test_texts_are_merged_as_on_the_page(before, mine, theirs, both):
    """The cases of panel-js/test/merging.test.js."""
    assert merged(before, mine, theirs) == both
