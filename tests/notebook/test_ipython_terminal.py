"""The magics in IPython on a terminal: text as it comes, and nothing a terminal would obey."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.timeout(60)


def ipython(script: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "IPython", "--no-banner", "--simple-prompt", "--quick"]
    command += ["--colors=nocolor", "--no-confirm-exit", "--HistoryManager.enabled=False"]
    return subprocess.run(
        command, input=script, capture_output=True, text=True, timeout=50, check=False
    )


def test_an_answer_is_written_with_its_quiet_line_under_it(scripted_worker):
    done = ipython("%load_ext llmkernel\n%generate -t 0 -n 40 -o out Hello\nprint('<', out, '>')\n")
    answer = done.stdout.partition("< ")[2].partition(" >")[0]
    assert done.stdout.count(answer) == 2
    assert "tokens/s" in done.stdout
    assert "\x1b" not in done.stdout


def test_several_answers_and_tables_are_plain_text(scripted_worker):
    done = ipython(
        "%load_ext llmkernel\n"
        "%generate --samples 2 -n 5 Hello\n"
        "%generate --for x in ['a','b'] -n 5 {{ x }}\n"
        "%llm list\n"
    )
    assert "[1]\n" in done.stdout
    assert "[2]\n" in done.stdout
    assert "2 answers" in done.stdout
    assert "scripted*" in done.stdout
    assert "|" not in done.stdout.replace("[|]", "")


def test_an_error_is_short_there_too(runtime_dir):
    done = ipython("%load_ext llmkernel\n%generate Hello\n")
    assert "WorkerNotFound: No worker runs." in done.stdout + done.stderr
    assert "%llm start" in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def test_a_conversation_a_comparison_and_a_card_are_plain_text(scripted_worker):
    done = ipython(
        "%load_ext llmkernel\n"
        "ip = get_ipython()\n"
        "ip.run_cell_magic('chat', '-t 0 -n 5', 'Hi')\n"
        "ip.run_cell_magic('chat', '-t 0 -n 5', 'And?')\n"
        "%llm chats\n"
        "%llm compare -n 5 -t 0 Hello\n"
        "%llm status --watch 1\n"
        "%generate --logprobs 2 -n 3 Hello\n"
    )
    assert "main: turn 1" in done.stdout
    assert "main: turn 2" in done.stdout  # nothing names a cell here
    assert "[scripted]" in done.stdout
    assert "0 running · 0 waiting" in done.stdout
    assert "log-probability" in done.stdout
    assert "<" not in done.stdout.replace("<eos>", "")
    assert "\x1b" not in done.stdout


def test_code_waits_at_the_next_prompt(scripted_worker):
    done = ipython(
        "%load_ext llmkernel\n"
        "%generate --format code -t 0 -n 9 -o out Hi\n"
        "ip = get_ipython()\n"
        "ip.run_line_magic('generate', '--format code -t 0 -n 9 Hi'); next_ = ip.rl_next_input\n"
        "print('same', next_ == out.text.strip())\n"
    )
    assert "same True" in done.stdout
