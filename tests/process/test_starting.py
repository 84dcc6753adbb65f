"""Starting and attaching, with real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from llmkernel import connection as files
from llmkernel import launcher, paths, protocol
from llmkernel.config import WorkerConfig
from llmkernel.errors import (
    ConfigurationConflict,
    LLMKernelError,
    MissingDependency,
    ModelNotFound,
    NotEnoughMemory,
    StartFailed,
)
from llmkernel.lock import NameLock
from tests.conftest import processes_in, stop_worker, wait_until
from tests.process.talking import answer, config, nothing_left

pytestmark = pytest.mark.timeout(60)


# One worker for all --------------------------------------------------------------


def test_a_start_gives_a_worker_that_answers(start_worker, runtime_dir):
    connection = start_worker()
    assert connection == files.find()
    assert answer(connection, 5).usage.completion_tokens == 5


def test_a_second_start_attaches(start_worker):
    first = start_worker(name="one")
    assert launcher.start(config(), timeout=20) == first


def test_two_names_are_two_workers(start_worker):
    a, b = start_worker(name="a"), start_worker(name="b")
    assert a.pid != b.pid
    assert [connection.name for connection in files.list_workers()] == ["a", "b"]


RACER = """
import sys
from llmkernel import launcher
from llmkernel.config import WorkerConfig
import llmkernel.watcher
print("here", flush=True)
sys.stdin.readline()
connection = launcher.start(WorkerConfig.build(model="scripted:load_ms=200", name="one"), timeout=50)
print(connection.pid, connection.instance, flush=True)
"""


def test_32_simultaneous_starts_give_one_worker_and_31_that_attach(runtime_dir):
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", RACER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(32)
    ]
    try:
        assert [racer.stdout.readline() for racer in racers] == ["here\n"] * 32
        for racer in racers:
            racer.stdin.write("go\n")
            racer.stdin.flush()
        answers = {racer.communicate(timeout=50)[0] for racer in racers}
        assert [racer.returncode for racer in racers] == [0] * 32
        assert len(answers) == 1
        [connection] = files.list_workers()
        assert answers == {f"{connection.pid} {connection.instance}\n"}
        assert [process.pid for process in processes_in(runtime_dir)] == [connection.pid]
        assert Path(connection.log).read_text().count(" ready: ") == 1
        assert Path(connection.log).read_text().count(" worker one: ") == 1
    finally:
        for racer in racers:
            racer.kill()
            racer.communicate()
        for connection in files.list_workers():
            stop_worker(connection)


def test_a_worker_has_no_parent_and_no_session_of_the_one_who_started_it(start_worker):
    before = psutil.Process().children()  # of other tests, such as multiprocessing's tracker
    connection = start_worker()
    assert os.getsid(connection.pid) == os.getpgid(connection.pid) == connection.pid
    ancestors = {parent.pid for parent in psutil.Process(connection.pid).parents()}
    assert os.getpid() not in ancestors
    assert [child for child in psutil.Process().children() if child not in before] == []


def test_a_worker_holds_nothing_of_the_one_who_started_it(start_worker):
    """No descriptor stays open through it: neither a pipe of the notebook nor its files."""
    with open(__file__) as mine:
        os.set_inheritable(mine.fileno(), True)
        connection = start_worker()
    links = [os.readlink(path) for path in Path(f"/proc/{connection.pid}/fd").iterdir()]
    assert __file__ not in links
    assert os.readlink(f"/proc/{connection.pid}/fd/0") == os.devnull
    assert os.readlink(f"/proc/{connection.pid}/fd/1") == connection.log
    assert not any(link.startswith("pipe:") and link in pipes_of(os.getpid()) for link in links)


def pipes_of(pid: int) -> set[str]:
    found = set()
    for path in Path(f"/proc/{pid}/fd").iterdir():
        try:
            found.add(os.readlink(path))
        except FileNotFoundError:
            continue
    return {link for link in found if link.startswith("pipe:")}


def test_progress_is_relayed_to_whoever_waits(runtime_dir, start_worker):
    mine: list[protocol.Progress] = []
    theirs: list[protocol.Progress] = []
    slow = config("scripted:load_ms=1500")
    with ThreadPoolExecutor() as pool:
        first = pool.submit(launcher.start, slow, on_progress=mine.append, timeout=30)
        wait_until(lambda: mine, seconds=20, what="progress")
        second = launcher.start(slow, on_progress=theirs.append, timeout=30)
        assert first.result() == second
    stop_worker(second)
    for seen in (mine, theirs):
        assert {progress.stage for progress in seen} >= {"read"}
        done = [progress.done for progress in seen if progress.stage == "read"]
        assert done == sorted(done)
        assert done[-1] == 100


def test_a_local_model_is_named_by_its_whole_path(runtime_dir, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").mkdir()
    asked: list[WorkerConfig] = []
    monkeypatch.setattr(launcher, "_launch", lambda config, lock, wait: asked.append(config))
    launcher.start(WorkerConfig.build(model="model"))
    assert asked[0].model == str(tmp_path / "model")
    assert asked[0].name == "model"


# Other settings ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"model": "scripted:step_ms=1"}, "model=scripted (asked: scripted:step_ms=1)"),
        ({"model": "demo"}, "model=scripted (asked: demo)"),
        ({"max_concurrent": 8}, "max_concurrent=64 (asked: 8)"),
        ({"quantization": "nf4"}, "quantization=none (asked: nf4)"),
        ({"prefix_cache": False, "queue": 3}, "prefix_cache=True (asked: False), queue=512"),
        ({"kv_cache": "1GiB"}, "kv_cache=65536 (asked: 1073741824)"),
    ],
    ids=range(6),
)
def test_a_worker_with_other_settings_is_a_conflict(start_worker, settings, said):
    start_worker(name="one")
    with pytest.raises(ConfigurationConflict) as caught:
        launcher.start(WorkerConfig.build(**{"model": "scripted", "name": "one"} | settings))
    assert said in str(caught.value)
    assert set(caught.value.data["settings"]) == set(settings)


def test_what_was_not_asked_for_or_came_out_the_same_is_no_conflict(start_worker):
    first = start_worker(name="one", max_concurrent=8)
    for settings in ({}, {"max_concurrent": 8}, {"device": "cpu"}, {"quantization": "none"}):
        assert launcher.start(config(**settings), timeout=20) == first


# Failures ------------------------------------------------------------------------


def test_a_failed_load_arrives_as_what_it_is(runtime_dir):
    with pytest.raises(ModelNotFound, match="told not to load"):
        launcher.start(config("scripted:fail_load=model_not_found"), timeout=20)
    nothing_left(runtime_dir)
    with pytest.raises(NotEnoughMemory):
        launcher.start(config("scripted:fail_load=not_enough_memory"), timeout=20)
    nothing_left(runtime_dir)


def test_a_failed_load_arrives_at_everybody_who_waits(runtime_dir):
    failing = config("scripted:load_ms=1000,fail_load=model_gated")

    def start(_: int) -> str:
        with pytest.raises(StartFailed) as caught:
            launcher.start(failing, timeout=30)
        return caught.value.code

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(start, range(8))) == {"model_gated"}
    nothing_left(runtime_dir)
    assert paths.log_path("one").read_text().count(" worker one: ") == 1


def test_a_folder_without_a_model_is_told_by_the_real_loader(runtime_dir, tmp_path):
    with pytest.raises(ModelNotFound, match=r"config\.json"):
        launcher.start(config(str(tmp_path)), timeout=50)
    nothing_left(runtime_dir)


def test_a_missing_package_is_told_with_its_extra(runtime_dir, tmp_path, monkeypatch):
    code = "raise ModuleNotFoundError(\"No module named 'torch'\", name='torch')"
    (tmp_path / "torch.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(MissingDependency, match=r"pip install 'llmkernel\[worker\]'"):
        launcher.start(config("demo"), timeout=20)
    nothing_left(runtime_dir)


def test_a_bad_setting_of_the_model_is_told(runtime_dir):
    with pytest.raises(LLMKernelError, match="step_ms"):
        launcher.start(config("scripted:step_sm=1"), timeout=20)
    nothing_left(runtime_dir)


@pytest.mark.parametrize(
    ("module", "code"),
    [
        ("zmq", "raise RuntimeError('this environment is broken')"),
        ("click", "raise RuntimeError('this environment is broken')"),
        ("zmq", "import os, sys; print('this environment is broken', flush=True); os._exit(3)"),
        ("zmq", "print('this environment is broken', flush=True); import os; os.abort()"),
    ],
    ids=["raises", "raises early", "exits", "crashes"],
)
def test_a_crash_before_the_socket_gives_its_log(runtime_dir, tmp_path, monkeypatch, module, code):
    (tmp_path / f"{module}.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    paths.log_path("one").write_text("of another time\n")
    with pytest.raises(StartFailed, match="this environment is broken") as caught:
        launcher.start(config(), timeout=20)
    assert "of another time" not in str(caught.value)
    assert str(paths.log_path("one")) in str(caught.value)
    nothing_left(runtime_dir)


def test_an_interpreter_that_cannot_be_run_is_told(runtime_dir, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    with pytest.raises(StartFailed, match="could not be started"):
        launcher.start(config())
    nothing_left(runtime_dir)


def test_a_start_that_takes_too_long_ends_what_it_began(runtime_dir):
    with pytest.raises(StartFailed, match=r"not ready within 1 s"):
        launcher.start(config("scripted:load_ms=20000"), timeout=1)
    nothing_left(runtime_dir)


def test_an_attached_start_that_takes_too_long_leaves_the_worker_alone(runtime_dir):
    slow = config("scripted:load_ms=3000")
    with ThreadPoolExecutor() as pool:
        first = pool.submit(launcher.start, slow, timeout=30)
        wait_until(lambda: files.running("one"), seconds=20, what="the connection file")
        with pytest.raises(StartFailed, match="not ready"):
            launcher.start(slow, timeout=0.3)
        stop_worker(first.result())


STARTER = """
import sys
from llmkernel import launcher
from llmkernel.config import WorkerConfig
def show(progress): print(progress.stage, flush=True)
launcher.start(WorkerConfig.build(model="scripted:load_ms=20000", name="one"), on_progress=show)
"""


@pytest.mark.parametrize("after", ["spawn", "progress"])
def test_an_interrupted_start_ends_what_it_began(runtime_dir, after):
    starter = subprocess.Popen(
        [sys.executable, "-c", STARTER], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    if after == "progress":
        assert starter.stdout.readline()
    else:
        wait_until(paths.lock_path("one").exists, seconds=20, what="the lock")
    starter.send_signal(signal.SIGINT)
    assert "KeyboardInterrupt" in starter.communicate(timeout=20)[1]
    nothing_left(runtime_dir)


def test_an_interrupt_before_the_process_exists_gives_the_name_back(runtime_dir, monkeypatch):
    def interrupted(_: WorkerConfig) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(launcher, "Child", interrupted)
    with pytest.raises(KeyboardInterrupt):
        launcher.start(config())
    nothing_left(runtime_dir)
    with NameLock.take(paths.lock_path("one")) as lock:
        assert lock.in_place


def test_an_error_of_the_caller_while_it_waits_ends_what_it_began(runtime_dir):
    def show(progress: protocol.Progress) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        launcher.start(config("scripted:load_ms=20000"), on_progress=show)
    nothing_left(runtime_dir)


def test_a_starter_that_is_killed_leaves_a_worker_that_others_find(runtime_dir):
    starter = subprocess.Popen([sys.executable, "-c", STARTER.replace("20000", "1000")])
    wait_until(lambda: files.running("one"), seconds=20, what="the connection file")
    starter.kill()
    starter.wait()
    connection = launcher.start(config("scripted:load_ms=1000"), timeout=20)
    assert answer(connection)
    stop_worker(connection)


def test_a_full_disk_is_named_by_the_one_who_starts(runtime_dir):
    program = """if True:
        import resource, llmkernel
        from llmkernel.errors import StartFailed
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
        try:
            llmkernel.start("scripted", name="full")
        except StartFailed as error:
            print(error)
    """
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=True
    )
    assert "File too large" in done.stdout
    assert not files.running("full")


def test_only_one_of_many_starts_is_told_that_it_started(runtime_dir):
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda _: launcher.begin(config()), range(6)))
    assert len({connection.instance for connection, _ in found}) == 1
    assert [started for _, started in found].count(True) == 1
    stop_worker(found[0][0])
