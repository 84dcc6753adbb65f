"""`chat` as a person uses it in a terminal, and through a pipe."""

from __future__ import annotations

import json

import pytest

from llmkernel.client import Client
from tests.cli.terminal import Terminal, run

SLOW = "scripted:step_ms=20,eos_after=100000"
PROMPT = r"> $"


@pytest.fixture
def terminal(scripted_worker):
    with Terminal("chat", "-t", "0", "-n", "60") as terminal:
        terminal.until(PROMPT)
        yield terminal


def say(terminal: Terminal, text: str) -> str:
    """Type a line; what is on the screen until the next prompt, without what was typed."""
    terminal.type(text + "\r")
    seen = terminal.until(r"\n> $").replace("\r", "")
    return seen.removesuffix("> ").partition("\n")[2].strip()


def answers(client: Client, *questions: str) -> list[str]:
    """What the model says to these questions, one after the other."""
    turns, found = [], []
    for question in questions:
        turns.append({"role": "user", "content": question})
        found.append(client.chat(turns, temperature=0, max_tokens=60).text)
        turns.append({"role": "assistant", "content": found[-1]})
    return found


def test_each_question_is_answered_knowing_the_ones_before(terminal, scripted_worker):
    with Client(scripted_worker) as client:
        expected = answers(client, "one", "two")
    assert [say(terminal, "one"), say(terminal, "two")] == [text.strip() for text in expected]


def test_reset_undo_and_retry(terminal, scripted_worker):
    with Client(scripted_worker) as client:
        first, second = (text.strip() for text in answers(client, "one", "two"))
    say(terminal, "one")
    assert say(terminal, "two") == second
    assert say(terminal, "/retry") == second
    assert say(terminal, "/undo") == "Forgotten: two"
    assert say(terminal, "two") == second
    assert say(terminal, "/reset") == "Forgotten."
    assert say(terminal, "one") == first
    assert say(terminal, "/reset") == "Forgotten."
    assert say(terminal, "/undo") == "There is nothing to forget."


def test_a_backslash_and_three_quotes_make_texts_of_many_lines(terminal, scripted_worker):
    with Client(scripted_worker) as client:
        expected = answers(client, "a\nb")[0].strip()
    terminal.type("a\\\r")
    terminal.until("… $")
    assert say(terminal, "b") == expected
    say(terminal, "/reset")
    terminal.type('"""a\r')
    terminal.until("… $")
    assert say(terminal, 'b"""') == expected


def test_settings_change_the_next_answer(terminal):
    say(terminal, "/set max_tokens 3")
    assert 0 < len(say(terminal, "one")) <= 3
    assert "max_tokens=3" in say(terminal, "/set")
    assert "top_p must be" in say(terminal, "/set top_p 7")
    assert "Did you mean 'temperature'" in say(terminal, "/set temprature 1")


def test_a_system_text_is_set_shown_and_removed(terminal):
    assert say(terminal, "/system be short") == "System: be short"
    assert say(terminal, "/system") == "System: be short"
    assert say(terminal, "/system -") == "System: (nothing)"


def test_an_unknown_command_names_the_nearest(terminal):
    assert "Did you mean /history?" in say(terminal, "/hist")
    assert "/retry" in say(terminal, "/help")


def test_two_slashes_ask_with_one(terminal, scripted_worker):
    with Client(scripted_worker) as client:
        expected = answers(client, "/etc")[0].strip()
    assert say(terminal, "//etc") == expected


def test_what_is_saved_can_be_loaded(terminal, tmp_path):
    say(terminal, "one")
    path = tmp_path / "talk.json"
    assert say(terminal, f"/save {path}") == f"Saved: {path}"
    say(terminal, "/reset")
    assert say(terminal, f"/load {path}") == "Loaded: 2 turns."
    assert say(terminal, "/history").startswith("you: one\nmodel: ")
    assert "No such file" in say(terminal, f"/load {tmp_path}/absent.json")
    assert "Give the name of a file" in say(terminal, "/save")


def test_ctrl_c_at_the_prompt_drops_the_line_and_stays(terminal):
    terminal.type("half a quest")
    terminal.until("half a quest")
    for _ in range(20):  # readline does not wake for a signal that comes while it takes a key
        terminal.interrupt()
        if terminal.sees(PROMPT, seconds=0.5):
            break
    assert say(terminal, "/history") == ""


@pytest.mark.parametrize("farewell", ["\x04", "/quit\r", "/exit\r"])
def test_ctrl_d_and_quit_leave(terminal, farewell):
    terminal.type(farewell)
    assert terminal.end() == 0
    assert "Traceback" not in terminal.screen


def test_ctrl_c_stops_the_answer_keeps_it_and_the_conversation_goes_on(start_worker):
    start_worker(SLOW)
    with Terminal("chat", "-n", "2000") as terminal:
        terminal.until(PROMPT)
        terminal.type("one\r")
        terminal.until(r"[a-z]+ [a-z]+ ")
        terminal.interrupt()
        terminal.until(r"\n> $")
        history = say(terminal, "/history")
        assert history.startswith("you: one\nmodel: ")
        assert len(history) > len("you: one\nmodel: ") + 3
        say(terminal, "/set max_tokens 4")
        assert say(terminal, "two")
        terminal.type("\x04")
        assert terminal.end() == 0


def test_an_error_is_shown_and_the_conversation_goes_on(start_worker):
    start_worker("scripted:nan_for=poison")
    with Terminal("chat") as terminal:
        terminal.until(PROMPT)
        assert "Error:" in say(terminal, "poison")
        say(terminal, "/reset")
        assert "Error:" not in say(terminal, "one")


def test_a_conversation_that_has_grown_too_long_says_how_to_make_room(start_worker):
    start_worker("scripted:context_length=64")
    with Terminal("chat") as terminal:
        terminal.until(PROMPT)
        assert "/reset makes room" in say(terminal, "long " * 20)


def test_through_a_pipe_each_line_is_a_question(scripted_worker):
    with Client(scripted_worker) as client:
        expected = answers(client, "one", "two")
    done = run("chat", "-t", "0", "-n", "60", stdin=b"one\n\ntwo")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "".join(text.rstrip("\n") + "\n" for text in expected)


def test_json_is_one_line_for_each_answer(scripted_worker):
    done = run("chat", "-t", "0", "-n", "60", "--json", stdin=b"one\ntwo\n")
    found = [json.loads(line)["text"] for line in done.stdout.splitlines()]
    with Client(scripted_worker) as client:
        assert found == answers(client, "one", "two")


def test_an_error_in_a_pipe_ends_the_program(scripted_worker):
    done = run("chat", stdin=b"caf\xe9\nmore\n")
    assert done.returncode == 2
    assert done.stdout == ""
    assert "UTF-8" in done.stderr


def test_a_saved_conversation_is_gone_on_with(scripted_worker, tmp_path):
    path = tmp_path / "talk.json"
    run("chat", "-t", "0", "-n", "60", stdin=f"one\n/save {path}\n".encode())
    done = run("chat", "--load", str(path), stdin=b"two\n")
    with Client(scripted_worker) as client:
        assert done.stdout.strip() == answers(client, "one", "two")[1].strip()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--samples", "2"], "one answer"),
        (["--logprobs", "1"], "log-probabilities"),
        (["--load", "/absent.json"], "No such file"),
    ],
)
def test_what_a_conversation_cannot_have_is_refused(scripted_worker, arguments, says):
    done = run("chat", *arguments)
    assert done.returncode == 2
    assert says in done.stderr
