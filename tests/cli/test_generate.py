"""`generate`: where prompts come from, what is written, and what Ctrl-C leaves."""

from __future__ import annotations

import json
import os
import signal

import pytest

from llmkernel import connection
from llmkernel.client import Client
from tests.cli.terminal import Terminal, run
from tests.conftest import wait_until

SLOW = "scripted:step_ms=20,eos_after=100000"


@pytest.fixture
def client(scripted_worker):
    with Client(scripted_worker) as client:
        yield client


def test_the_answer_is_what_the_client_gives(client):
    turn = [{"role": "user", "content": "hello"}]
    expected = client.chat(turn, temperature=0, max_tokens=40).text
    done = run("generate", "hello", "-t", "0", "-n", "40")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == expected + "\n"


def test_raw_text_is_continued_as_it_is(client):
    expected = client.generate("hello", temperature=0, max_tokens=40).text
    assert run("generate", "hello", "--raw", "-t", "0", "-n", "40").stdout == expected + "\n"


def test_a_system_text_comes_first(client):
    turns = [{"role": "system", "content": "short"}, {"role": "user", "content": "hello"}]
    expected = client.chat(turns, temperature=0, max_tokens=40).text
    done = run("generate", "hello", "--system", "short", "-t", "0", "-n", "40")
    assert done.stdout == expected + "\n"


@pytest.mark.parametrize("arguments", [["-"], []])
def test_a_pipe_is_a_prompt_without_its_last_newline(client, arguments):
    given = "zwei Wörter\nund 日本語"
    expected = client.generate(given, temperature=0, max_tokens=20).text
    done = run(
        "generate", *arguments, "--raw", "-t", "0", "-n", "20", stdin=(given + "\n").encode()
    )
    assert done.stdout == expected + "\n"


def test_bytes_that_are_no_text_are_refused_with_their_place(scripted_worker):
    done = run("generate", "-", stdin=b"caf\xe9 au lait")
    assert done.returncode == 2
    assert "0xe9 at offset 3" in done.stderr
    assert "iconv" in done.stderr


@pytest.mark.parametrize("before", [[], ["hello", "--system"]])
def test_an_argument_that_is_no_text_is_refused_with_its_place(scripted_worker, before):
    done = run("generate", *before, b"caf\xe9".decode("utf-8", "surrogateescape"))
    assert done.returncode == 2
    assert "not UTF-8: byte 0xe9 at offset 3" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_huge_prompt_is_refused_before_it_is_sent(scripted_worker):
    done = run("generate", "-", stdin=b"x" * 3_000_000)
    assert done.returncode == 2
    assert "longer than 2,097,152 bytes" in done.stderr


def test_a_prompt_that_does_not_fit_is_refused_with_both_numbers(scripted_worker):
    done = run("generate", "-", "--raw", "--json", stdin=b"x" * 5_000)
    assert done.returncode == 2
    error = json.loads(done.stdout)["error"]
    assert error["code"] == "prompt_too_long"
    assert error["data"]["needed"] > error["data"]["limit"] == 2048


def test_a_prompt_is_needed_at_a_terminal(scripted_worker):
    with Terminal("generate") as terminal:
        assert terminal.end() == 2
        assert "Give a PROMPT" in terminal.screen


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["-t", "-1"], "temperature must be from 0 to 100"),
        (["--top-p", "0"], "top_p must be above 0"),
        (["--samples", "3", "--best-of", "2"], "best_of (2) is below n (3)"),
        (["--logit-bias", "a=b"], "ID=BIAS"),
        (["--raw", "--system", "x"], "--system has no place"),
        (["--logprobs", "2"], "--json"),
    ],
)
def test_a_bad_value_is_refused_without_a_worker(runtime_dir, arguments, says):
    done = run("generate", "hello", *arguments)
    assert done.returncode == 2
    assert says in done.stderr


def test_json_is_one_object_with_everything(scripted_worker):
    done = run(
        *("generate", "hello", "--json", "-t", "0", "-n", "5", "--ignore-eos"),
        *("--logprobs", "1", "--prompt-logprobs", "1"),
    )
    found = json.loads(done.stdout)
    assert len(found["token_ids"]) == 5
    assert found["finish_reason"] == "length"
    assert [entry["token_id"] for entry in found["logprobs"]] == found["token_ids"]
    assert len(found["prompt_logprobs"]) == found["usage"]["prompt_tokens"]
    assert found["usage"]["completion_tokens"] == 5
    assert set(found["timings"]) == {"queue", "prefill", "decode", "first_step", "last_step"}
    assert found["worker"] == "scripted"


def test_ndjson_pieces_add_up_to_the_last_line(scripted_worker):
    done = run("generate", "hello", "--json", "--stream", "-t", "0", "-n", "30")
    *deltas, last = [json.loads(line) for line in done.stdout.splitlines()]
    assert {record["type"] for record in deltas} == {"delta"}
    assert len(deltas) > 1
    assert last["type"] == "finished"
    assert "".join(record["text"] for record in deltas) == last["text"]
    assert [token for record in deltas for token in record["token_ids"]] == last["token_ids"]


def test_several_answers_are_numbered(scripted_worker):
    arguments = ["generate", "hello", "--samples", "3", "--seed", "5", "-n", "12", "--ignore-eos"]
    found = json.loads(run(*arguments, "--json").stdout)["samples"]
    texts = [sample["text"] for sample in found]
    assert len(set(texts)) > 1
    expected = "".join(f"[{number}]\n{text}\n" for number, text in enumerate(texts, 1))
    assert run(*arguments).stdout == expected


def test_statistics_go_to_standard_error(scripted_worker):
    done = run("generate", "hello", "--stats", "-n", "10", "--ignore-eos")
    assert done.stderr.startswith("10 tokens · ")
    assert "tokens/s · first after" in done.stderr
    assert done.stderr.rstrip().endswith("stopped at max_tokens")
    assert "tokens/s" not in done.stdout


def test_an_answer_that_the_context_cuts_off_says_so(start_worker):
    start_worker("scripted:context_length=64,eos_after=100000")
    assert "The context is full: the answer has no end." in run("generate", "hello").stderr
    assert run("generate", "hello", "-n", "10").stderr == "", "that was asked for"


@pytest.mark.parametrize("given", [b"", b"\n", b" \n "])
def test_nothing_in_the_pipe_is_no_prompt(scripted_worker, given):
    done = run("generate", "-", stdin=given)
    assert done.returncode == 2
    assert "standard input is empty" in done.stderr
    assert done.stdout == ""


def test_a_request_that_breaks_keeps_what_came_and_says_why(start_worker):
    start_worker("scripted:fail_at_step=12,eos_after=100000")
    done = run("generate", "hello", "-n", "100", "--json")
    found = json.loads(done.stdout)["error"]
    assert (done.returncode, found["code"]) == (1, "step_failed")
    assert found["partial"]["finish_reason"] == "error"
    assert len(found["partial"]["token_ids"]) > 0


def test_ctrl_c_keeps_the_text_cancels_the_request_and_has_code_130(start_worker):
    worker = start_worker(SLOW)
    with Terminal("generate", "hello", "-n", "2000") as terminal:
        seen = terminal.until(r"[a-z]+ [a-z]+ ")
        terminal.interrupt()
        assert terminal.end() == 130
        assert "Traceback" not in terminal.screen
        assert "Error" not in terminal.screen
        assert len(seen.split()) >= 2
    with Client(worker) as client:
        wait_until(lambda: client.status().load.running == 0, seconds=5, what="the cancel")


def test_ctrl_c_with_json_writes_what_came(start_worker):
    start_worker(SLOW)
    with Terminal("generate", "hello", "-n", "2000", "--json") as terminal:
        with Client(connection.find()) as client:
            wait_until(lambda: client.status().load.tokens_generated > 5, seconds=10, what="tokens")
        terminal.interrupt()
        assert terminal.end() == 130
        found = json.loads(terminal.screen.replace("^C", "").strip())
        assert found["finish_reason"] == "cancelled"
        assert len(found["text"]) > 3


def test_an_answer_cannot_send_commands_to_the_terminal(scripted_worker):
    escape = {"27": "100"}  # the byte of ESC, made certain
    arguments = [f"--logit-bias={token}={bias}" for token, bias in escape.items()]
    with Terminal("generate", "x", "-n", "8", "-t", "0", "--ignore-eos", *arguments) as terminal:
        assert terminal.end() == 0
        assert "\x1b" not in terminal.screen


def test_a_worker_that_dies_is_named(start_worker):
    worker = start_worker(SLOW)
    with Terminal("generate", "hello", "-n", "2000") as terminal:
        terminal.until(r"[a-z]+ ")
        os.kill(worker.pid, signal.SIGKILL)
        assert terminal.end() == 4
        assert "died" in terminal.screen
        assert "llmkernel start" in terminal.screen
