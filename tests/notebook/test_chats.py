"""Conversations over cells: they are what their cells show."""

from __future__ import annotations

import os
import signal

import pytest

from llmkernel.notebook.chats import Chat, Exchange, Place, turns

pytestmark = pytest.mark.timeout(90)


def take(chat, question, cell, run, system=None):
    """One turn, as a cell takes it; gives what is said under it."""
    place = Place(cell, run)
    position = chat.position(place)
    chat.put(position, Exchange(question, f"{question}!", system, place))
    return position.remark


def questions(chat):
    return [exchange.question for exchange in chat.exchanges]


@pytest.fixture
def chat():
    made = Chat("main")
    assert take(made, "a", "A", "1") == "turn 1"
    assert take(made, "b", "B", "2") == "turn 2"
    assert take(made, "c", "C", "3") == "turn 3"
    return made


def test_a_new_cell_goes_on_at_the_end(chat):
    assert take(chat, "d", "D", "4") == "turn 4"
    assert questions(chat) == ["a", "b", "c", "d"]


def test_a_cell_that_is_run_again_goes_back_to_where_it_was(chat):
    assert take(chat, "B", "B", "4") == "turn 2 again; turn 3 is left out until run again"
    assert questions(chat) == ["a", "B"]
    assert take(chat, "c", "C", "5") == "turn 3"
    assert take(chat, "a", "A", "6") == "turn 1 again; turns 2 to 3 are left out until run again"
    assert questions(chat) == ["a"]


def test_the_last_cell_again_replaces_its_own_turn(chat):
    assert take(chat, "c", "C", "4") == "turn 3 again"
    assert questions(chat) == ["a", "b", "c"]


def test_a_cell_that_takes_several_turns_in_one_run_replaces_them_all_when_it_runs_again(chat):
    assert take(chat, "d1", "D", "4") == "turn 4"
    assert take(chat, "d2", "D", "4") == "turn 5"
    assert take(chat, "e1", "D", "5").startswith("turn 4 again")
    assert take(chat, "e2", "D", "5") == "turn 5"
    assert questions(chat) == ["a", "b", "c", "e1", "e2"]


def test_where_cells_have_no_names_every_turn_goes_on_at_the_end():
    chat = Chat("main")
    for run in "12":
        take(chat, "a", None, run)
    assert questions(chat) == ["a", "a"]


def test_the_last_word_on_the_system_text_holds_and_goes_with_its_cell(chat):
    take(chat, "d", "D", "4", system="brief")
    assert chat.messages[0] == {"role": "system", "content": "brief"}
    take(chat, "e", "E", "5", system="")
    assert chat.messages[0]["role"] == "user"
    take(chat, "c", "C", "6")
    assert chat.system is None
    assert chat.messages == turns(chat.exchanges)


def test_what_is_taken_back_is_gone(chat):
    chat.undo()
    assert questions(chat) == ["a", "b"]
    assert chat.messages[-1] == {"role": "assistant", "content": "b!"}


# in a kernel ------------------------------------------------------------------------------------


def messages(notebook, name="main"):
    notebook.must(f"%llm chats {name} -o out")
    return notebook.must(
        "print([m['content'] for m in out if m['role'] == 'user'])"
    ).printed.strip()


def test_a_conversation_goes_on_over_cells_and_the_model_is_given_all_of_it(
    notebook, scripted_worker
):
    first = notebook.must("%%chat -t 0 -n 5 --system brief\nHi", cell="A")
    assert first.text.endswith("main: turn 1)")
    second = notebook.must("%%chat -t 0 -n 5 -o answer\nAnd {{ 1 + 1 }}?", cell="B")
    assert second.text.endswith("main: turn 2)")
    notebook.must("%llm chats main -o out\nimport llmkernel; llm = llmkernel.connect()")
    assert notebook.must("[m['role'] for m in out]").value == (
        "['system', 'user', 'assistant', 'user', 'assistant']"
    )
    assert notebook.must("out[3]['content'], out[4]['content'] == answer.text").value == (
        "('And 2?', True)"
    )
    same = "llm.chat(out[:-1], temperature=0, max_tokens=5).text == answer.text"
    assert notebook.must(same).value == "True"


def test_a_cell_run_again_in_a_kernel_takes_its_turn_once_more(notebook, scripted_worker):
    for cell in "ABC":
        notebook.must(f"%%chat -t 0 -n 3\n{cell}", cell=cell)
    again = notebook.must("%%chat -t 0 -n 3\nB2", cell="B")
    assert "main: turn 2 again; turn 3 is left out until run again" in again.text
    assert messages(notebook) == "['A', 'B2']"
    notebook.must("%%chat -t 0 -n 3 other\nelse", cell="D")
    listed = notebook.must("%llm chats").text.splitlines()
    assert [line.split()[:2] for line in listed[1:]] == [["main", "2"], ["other", "1"]]


def test_a_turn_that_fails_leaves_its_conversation_as_it_was(notebook, start_worker):
    start_worker("scripted:nan_for=bad")
    notebook.must("%%chat -t 0 -n 3\nA", cell="A")
    notebook.must("%%chat -t 0 -n 3\nB", cell="B")
    assert notebook.run("%%chat -t 0 -n 3\nbad", cell="A").error["ename"] == "NumericalError"
    assert notebook.run("%%chat -t 0 -n 3\n{{ nothing }}", cell="A").error is not None
    assert messages(notebook) == "['A', 'B']"


def test_a_turn_that_breaks_off_says_that_it_was_not_taken(notebook, start_worker):
    worker = start_worker("scripted:step_ms=10,eos_after=1000")
    notebook.must("%%chat -t 0 -n 3\nA", cell="A")
    notebook.must("%%chat -t 0 -n 3\nB", cell="B")

    def kill(message):
        if message["msg_type"] == "update_display_data":
            os.kill(worker.pid, signal.SIGKILL)

    broken = notebook.follow(notebook.send("%%chat -t 0 -o part\nA2", cell="A"), kill)
    assert broken.error["ename"] == "WorkerDied"
    assert broken.text.endswith("broken off · main: turn 1 not taken)")
    assert notebook.must("part.finish_reason").value == "'error'"
    assert messages(notebook) == "['A', 'B']"


def test_a_turn_that_is_stopped_is_what_stands_on_the_screen(notebook, start_worker):
    start_worker("scripted:step_ms=10,eos_after=1500")
    sent = notebook.send("%%chat -t 0 -o part\nlong", cell="A")

    def stop(message):
        if message["msg_type"] == "update_display_data" and not pressed:
            pressed.append(True)
            notebook.interrupt()

    pressed = []
    assert notebook.follow(sent, stop).error["ename"] == "KeyboardInterrupt"
    notebook.must("%llm chats main -o out")
    assert (
        notebook.must("out[1]['content'] == part.text, len(part.text) > 0").value == "(True, True)"
    )


def test_conversations_are_shown_taken_back_and_forgotten(notebook, scripted_worker):
    assert "None was begun" in notebook.must("%llm chats").text
    notebook.must("%%chat -t 0 -n 3 x\n<b>A</b>", cell="A")
    notebook.must("%%chat -t 0 -n 3 x\nB", cell="B")
    shown = notebook.must("%llm chats x")
    assert "[user]\n\n<b>A</b>" in shown.text
    assert "<b>" not in shown.markdown
    assert "B" not in notebook.must("%llm chats x --undo").text.split("[assistant]")[0]
    assert messages(notebook, "x") == "['<b>A</b>']"
    assert notebook.must("%llm chats x --reset").text == "Forgot x."
    assert "x" in notebook.run("%llm chats x").error["evalue"]
    assert notebook.run("%llm chats -o v").error["ename"] == "InvalidRequest"


def test_options_that_make_no_turn_are_refused(notebook, scripted_worker):
    for line in ("--samples 2", "--raw", "--logprobs 2", "--for x in y", "one two"):
        assert notebook.run(f"%%chat {line}\nHi").error["ename"] == "InvalidRequest", line
    notebook.must("%llm config --raw -n 3 --samples 2 --seed 1")  # are no defaults of a turn
    assert notebook.must("%%chat\nHi").text.endswith("main: turn 1)")
