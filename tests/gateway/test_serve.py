"""`llmkernel serve` as a process: its token, its log, its end."""

from __future__ import annotations

import json
import os
import re
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest

from llmkernel.errors import ConnectionProblem, InvalidRequest
from llmkernel.gateway import credentials
from llmkernel.gateway.settings import Limits, Settings
from tests.cli import terminal
from tests.conftest import wait_until

ENDLESS = "scripted:step_ms=5,eos_after=100000,context_length=20000,blocks=20000"
SECRET = "secret-token-of-the-environment-0123"
PROMPT = "a prompt that nobody may read"


class Program:
    """A running `llmkernel serve`."""

    def __init__(self, process: subprocess.Popen[str], log: Path) -> None:
        self.process = process
        self.log = log

    def until(self, pattern: str) -> str:
        def found() -> re.Match[str] | None:
            assert self.process.poll() is None, self.log.read_text()
            return re.search(pattern, self.log.read_text())

        wait_until(found, seconds=60, what=pattern)
        return found()[1]


@contextmanager
def serve(tmp_path: Path, *arguments: str, **environment: str) -> Iterator[Program]:
    log = tmp_path / "gateway.log"
    with log.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "llmkernel.cli", "serve", "--port", "0", *arguments],
            stdout=file,
            stderr=file,
            text=True,
            env=os.environ | {"PYTHONUNBUFFERED": "1"} | environment,
        )
    try:
        yield Program(process, log)
    finally:
        process.kill()
        process.wait(10)


def test_a_gateway_starts_a_model_serves_it_and_ends_politely(runtime_dir, tmp_path, start_worker):
    with serve(tmp_path, ENDLESS, "--json-log") as program:
        url = program.until(r'"url":"([^"]+)"')
        worker = start_worker(ENDLESS)  # found, and stopped after the test
        token = credentials.token_path().read_text().strip()
        http = httpx.Client(base_url=url, headers={"Authorization": f"Bearer {token}"}, timeout=30)
        body = {"inputs": PROMPT, "parameters": {"max_new_tokens": 300}}
        assert len(http.post("/generate", json=body).json()["generated_text"]) == 300
        with http.stream("POST", "/generate_stream", json=body) as answer:
            lines = answer.iter_lines()
            next(lines)
            program.process.send_signal(signal.SIGTERM)
            rest = [line for line in lines if line.startswith("data:")]
        assert json.loads(rest[-1][5:])["generated_text"], "what was in flight must end whole"
        assert program.process.wait(10) == 0
        http.close()
        lines = [line for line in program.log.read_text().splitlines() if line.startswith("{")]
        events = [json.loads(line) for line in lines]
        assert [event["event"] for event in events][-3:] == ["stopping", "request", "stopped"]
        request = next(event for event in events if event.get("route") == "/generate")
        assert request["generated_tokens"] == 300
        assert PROMPT not in program.log.read_text()
        assert token not in program.log.read_text()
        assert worker.alive, "a worker outlives the gateway"


def test_a_second_signal_does_not_wait(runtime_dir, tmp_path, start_worker):
    start_worker(ENDLESS, name="endless")
    with serve(tmp_path, LLMKERNEL_GATEWAY_TOKEN=SECRET) as program:
        url = program.until(r"Serving .* at (\S+)")
        headers = {"Authorization": f"Bearer {SECRET}"}
        body = {"inputs": "x", "parameters": {"max_new_tokens": 15000}}
        with httpx.stream("POST", f"{url}/generate_stream", json=body, headers=headers) as answer:
            lines = answer.iter_lines()
            next(lines)
            program.process.send_signal(signal.SIGTERM)
            time.sleep(0.3)
            assert program.process.poll() is None
            began = time.monotonic()
            program.process.send_signal(signal.SIGTERM)
            last = [line for line in lines if line.startswith("data:")][-1]
        assert json.loads(last[5:])["error_type"] == "healthcheck"
        assert program.process.wait(10) == 0
        assert time.monotonic() - began < 8


def test_the_token_of_the_environment_is_nowhere_else(runtime_dir, tmp_path, start_worker):
    with serve(tmp_path, "scripted", LLMKERNEL_GATEWAY_TOKEN=SECRET) as program:
        url = program.until(r"Serving .* at (\S+)")
        worker = start_worker("scripted")
        answer = httpx.get(f"{url}/info", headers={"Authorization": f"Bearer {SECRET}"})
        assert answer.status_code == 200
        assert httpx.get(f"{url}/info", headers={"X-Api-Key": SECRET[:-1]}).status_code == 401
        assert not credentials.token_path().exists()
        for pid in (program.process.pid, worker.pid):
            assert SECRET not in " ".join(psutil.Process(pid).cmdline())
        assert SECRET not in str(psutil.Process(worker.pid).environ())
        assert SECRET not in program.log.read_text()
        assert SECRET not in Path(worker.log).read_text()
        listening = psutil.Process(program.process.pid).net_connections("inet")
        assert {each.laddr.ip for each in listening if each.status == "LISTEN"} == {"127.0.0.1"}


def test_the_token_file_is_for_its_user_alone(runtime_dir):
    old = os.umask(0)
    try:
        secret = credentials.read_token_file()
    finally:
        os.umask(old)
    path = credentials.token_path()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(secret) >= 43
    assert credentials.read_token_file() == secret
    assert [each.name for each in runtime_dir.iterdir()] == [path.name]
    path.chmod(0o644)
    with pytest.raises(ConnectionProblem, match="0644"):
        credentials.read_token_file()
    path.unlink()
    path.symlink_to("/etc/hostname")
    with pytest.raises(ConnectionProblem):
        credentials.read_token_file()


def test_a_token_is_not_shown_and_not_short():
    token = credentials.Token(SECRET)
    assert SECRET not in repr(token)
    assert token.matches(SECRET)
    assert not token.matches(SECRET.upper())
    assert not token.matches("ü\udc80")
    with pytest.raises(InvalidRequest, match="16"):
        credentials.Token("short")


def test_tokens_are_compared_in_constant_time():
    source = Path(credentials.__file__).read_text()
    assert "hmac.compare_digest" in source
    assert "== self._secret" not in source


def test_without_the_extra_its_name_is_told(runtime_dir, tmp_path):
    (tmp_path / "tornado.py").write_text("raise ImportError(name='tornado')")
    done = subprocess.run(
        [sys.executable, "-m", "llmkernel", "serve"],
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 5
    assert "pip install 'llmkernel[gateway]'" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--max-best-of", "0"], 2, "max_best_of must be at least 1"),
        (["--max-input-tokens", "10", "--max-total-tokens", "10"], 2, "must be below"),
        (["--worker", "nobody"], 3, "No worker 'nobody' runs"),
        (["--kv-cache", "lots", "scripted"], 2, "'lots' is no size"),
        (["scripted:fail_load=not_enough_memory"], 5, ""),
        (["--kv-cache", "lots", "--worker", "nobody"], 2, "'lots' is no size"),
        (["--device", "tpu", "--worker", "nobody"], 2, "device must be"),
        (
            ["--unload-after", "nan", "--allow-model", "demo", "-m", "x"],
            2,
            "nan is not a finite number",
        ),
        (["--drain-seconds", "nan", "--worker", "nobody"], 2, "nan is not a finite number"),
        (["--drain-seconds", "inf", "--worker", "nobody"], 2, "inf is not a finite number"),
        (["--allow-model", "", "--worker", "nobody"], 2, "Name a model"),
        (["--allow-origin", "*", "--worker", "nobody"], 2, "such as https://app.example"),
        (["--allow-origin", "app.example", "--worker", "nobody"], 2, "such as https://app.example"),
        (["--allow-origin", "https://a.example/x", "--worker", "nobody"], 2, "browser writes it"),
        (["--allow-host", "evil.com:80", "--worker", "nobody"], 2, "without a scheme, port"),
        (["--max-top-n-tokens", "50", "--worker", "nobody"], 2, "must be at most 20"),
        (["--max-stop-sequences", "50", "--worker", "nobody"], 2, "must be at most 16"),
        (["--max-best-of", "100", "--worker", "nobody"], 2, "must be at most 64"),
        (["--host", "999.1.1.1", "--worker", "nobody"], 2, "The address '999.1.1.1' cannot be"),
        (["--host", "192.0.2.1", "--worker", "nobody"], 2, "The address '192.0.2.1' cannot be"),
    ],
)
def test_what_cannot_be_served_ends_with_a_word(runtime_dir, arguments, code, says):
    done = terminal.run("serve", "--port", "0", *arguments)
    assert (done.returncode, "Traceback" in done.stderr) == (code, False)
    assert says in done.stderr


def test_a_mistyped_worker_is_answered_with_the_near_one_and_all_that_run(
    runtime_dir, start_worker
):
    start_worker("scripted", name="demo")
    start_worker("scripted", name="other")
    done = terminal.run("serve", "--port", "0", "-m", "dmo")
    assert done.returncode == 3
    assert "No worker 'dmo' runs. Did you mean 'demo'? Running: demo, other." in done.stderr
    assert done.stderr.count("llmkernel list") == 1


def test_a_worker_that_is_given_as_a_model_is_answered_with_the_option(runtime_dir, start_worker):
    start_worker("scripted", name="mine")
    done = terminal.run("serve", "--port", "0", "mine")
    assert done.returncode == 2
    assert "llmkernel serve --worker mine" in done.stderr


@pytest.mark.parametrize(
    "given",
    [
        {
            "allow_origins": (
                "https://app.example",
                "http://[::1]:3000",
                "null",
                "tauri://localhost",
            )
        },
        {"allow_hosts": ("models.example", "10.0.0.7", "fe80::1", "[fe80::1]", "my_host")},
        {"limits": Limits(max_best_of=64, max_stop_sequences=16, max_top_n_tokens=20)},
        {"otlp_endpoint": "http://127.0.0.1:4318"},
        {"otlp_endpoint": "https://[::1]:4318/v1/traces"},
    ],
)
def test_what_can_be_served_is_taken(given):
    assert Settings(**given)


@pytest.mark.parametrize(
    "given", ["collector:4317", "grpc://collector:4317", "http://", "http://[x", ""]
)
def test_a_collector_that_traces_cannot_be_sent_to_is_told_at_the_start(given):
    with pytest.raises(InvalidRequest, match=r"otlp_endpoint must be .* http://127.0.0.1:4318"):
        Settings(otlp_endpoint=given)


def test_a_port_that_is_taken_is_told_before_a_model_is_loaded(runtime_dir, tmp_path):
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = terminal.run("serve", "--port", str(taken.getsockname()[1]), "scripted")
    assert done.returncode == 2
    assert "--port" in done.stderr
    assert done.stderr.count("\n") == 1, "no hint that speaks of workers"


def test_an_address_of_another_machine_is_told_without_a_word_of_workers(runtime_dir):
    done = terminal.run("serve", "--port", "0", "--host", "192.0.2.1", "scripted")
    assert done.returncode == 2
    assert "--host" in done.stderr
    assert done.stderr.count("\n") == 1, "no hint that speaks of workers"
