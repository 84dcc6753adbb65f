"""Text on its way to the screen: at once, never too often, and never behind in the end."""

from __future__ import annotations

import itertools
import threading
import time
from types import SimpleNamespace

import pytest

from llmkernel.notebook import output, publisher
from llmkernel.notebook.pace import SHORTEST, Pace
from llmkernel.notebook.rendering import Shown
from llmkernel.notebook.tables import MARKDOWN, PLAIN

END = Shown({MARKDOWN: "the end", PLAIN: "the end"}, {MARKDOWN: "note", PLAIN: "(note)"}, {"k": 1})


class Recorder:
    """A display publisher that keeps what it is given, and when."""

    def __init__(self) -> None:
        self.published: list[tuple[float, dict, dict, dict, bool]] = []

    def publish(self, data, metadata=None, *, transient=None, update=False):
        self.published.append((time.monotonic(), data, metadata, transient, update))


@pytest.fixture
def shell():
    return SimpleNamespace(kernel=object(), display_pub=Recorder())


def test_the_first_token_is_shown_at_once(shell):
    live = output.Live(shell, "markdown", 1)
    began = time.monotonic()
    live.add(0, "Hello")
    while not shell.display_pub.published:
        assert time.monotonic() - began < 10
        time.sleep(0.001)
    live.finish(END)
    assert shell.display_pub.published[0][1][PLAIN] == "Hello"


def test_the_last_piece_is_shown_without_waiting_for_the_next(shell):
    live = output.Live(shell, "markdown", 1)
    live.add(0, "a")
    live.add(0, "b")
    deadline = time.monotonic() + 10
    while not any(data[PLAIN] == "ab" for _, data, *_ in shell.display_pub.published):
        assert time.monotonic() < deadline
        time.sleep(0.005)
    live.finish(END)


def test_a_thousand_tokens_a_second_are_at_most_25_updates_a_second(shell):
    live = output.Live(shell, "markdown", 1)
    began = time.monotonic()
    while time.monotonic() - began < 1.0:
        live.add(0, "token ")
        time.sleep(0.001)
    live.finish(END)
    times = [when for when, *_ in shell.display_pub.published]
    assert 5 <= len(times) <= 28
    gaps = [after - before for before, after in itertools.pairwise(times[:-1])]
    assert min(gaps) > SHORTEST * 0.5


def test_one_display_holds_a_generation_from_its_first_token_to_its_statistics(shell):
    live = output.Live(shell, "markdown", 2)
    live.add(1, "x")
    time.sleep(0.1)
    live.finish(END)
    first, *updates = shell.display_pub.published
    assert first[4] is False
    assert updates
    assert all(update for *_, update in updates)
    assert len({transient["display_id"] for *_, transient, _ in shell.display_pub.published}) == 1
    assert updates[-1][1] == {MARKDOWN: "the end\n\nnote", PLAIN: "the end\n\n(note)"}
    assert updates[-1][2] == {"k": 1}


def test_a_generation_without_a_token_is_shown_too(shell):
    output.Live(shell, "markdown", 1).finish(END)
    assert [update for *_, update in shell.display_pub.published] == [False]


def test_the_thread_is_gone_in_the_end(shell):
    live = output.Live(shell, "markdown", 1)
    live.add(0, "x")
    live.finish(END)
    assert [t for t in threading.enumerate() if t.name == "llmkernel-display"] == []


def test_published_once_is_published_once(shell):
    once = output.Once(shell)
    once.add(0, "x")
    assert shell.display_pub.published == []


def test_a_terminal_gets_text_as_it_comes_without_its_control_characters(capsys):
    terminal = output.Terminal()
    terminal.add(0, "Hel\x1b[31m")
    assert capsys.readouterr().out == "Hel[31m"
    terminal.add(0, "lo")
    terminal.finish(END)
    assert capsys.readouterr().out == "lo\n\n(note)\n"


@pytest.mark.parametrize(
    ("variable", "under_pytest", "hist_file", "mode"),
    [
        ("", False, "/home/x/history.sqlite", "live"),
        ("", True, "/home/x/history.sqlite", "once"),
        ("", False, ":memory:", "once"),
        ("auto", False, "/home/x/history.sqlite", "live"),
        ("1", True, ":memory:", "live"),
        ("0", False, "/home/x/history.sqlite", "once"),
    ],
)
def test_how_output_is_shown(monkeypatch, shell, variable, under_pytest, hist_file, mode):
    monkeypatch.setenv("LLMKERNEL_STREAM", variable)
    if not under_pytest:
        monkeypatch.delenv("PYTEST_VERSION", raising=False)
    shell.history_manager = SimpleNamespace(hist_file=hist_file)
    assert publisher.mode(shell) == mode


def test_captured_output_is_published_once(monkeypatch, shell):
    monkeypatch.setenv("LLMKERNEL_STREAM", "1")
    shell.display_pub.outputs = []
    assert publisher.mode(shell) == "once"


def test_without_a_kernel_there_is_a_terminal():
    assert publisher.mode(SimpleNamespace(display_pub=None)) == "terminal"


def test_the_interval_grows_with_the_text():
    pace = Pace()
    assert pace.wait(0.0) == 0.0
    pace.shown(1.0, 1.001, 100)
    assert pace.wait(1.0) == pytest.approx(SHORTEST)
    pace.shown(2.0, 2.001, 12_000)
    assert pace.wait(2.0) == pytest.approx(0.2)
    pace.shown(3.0, 3.1, 100)
    assert pace.wait(3.0) == pytest.approx(0.4)
    pace.shown(4.0, 9.0, 10**9)
    assert pace.wait(4.0) == pytest.approx(1.0)
    assert pace.wait(10.0) == 0.0
