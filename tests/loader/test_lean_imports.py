"""What a start imports for a model of text, and what it leaves alone."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from importlib import metadata

import pytest
import small_checkpoints

from llmkernel import collector
from llmkernel.worker import imports
from llmkernel.worker.imports import UNUSED, Installed

pytestmark = pytest.mark.timeout(120)

START = """
import sys
from llmkernel.config import WorkerConfig
from llmkernel.worker.assembly import assemble

trust = sys.argv[2] == "True"
assemble(WorkerConfig.build(model=sys.argv[1], device="cpu", trust_remote_code=trust), id)
print("assembled")
import sklearn
"""


@pytest.fixture
def everything(tmp_path):
    """A folder with every package that is not used, each of which says that it is imported."""
    for name in UNUSED:
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(f"print('{name}')\nraise SystemExit(3)\n")
    return tmp_path


@pytest.fixture
def name(monkeypatch):
    """A name of which no module is imported."""
    monkeypatch.setitem(sys.modules, "nothing_here", None)
    monkeypatch.delitem(sys.modules, "nothing_here")
    return "nothing_here"


def started(folder, packages, *, trust):
    """What a start prints with these packages installed."""
    path = os.pathsep.join([str(packages), *filter(None, sys.path)])
    done = subprocess.run(
        [sys.executable, "-c", START, str(folder), str(trust)],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 3, done.stderr
    return done.stdout.split()


def test_a_start_imports_nothing_for_pictures_sound_or_training(tmp_path_factory, everything):
    small_checkpoints.save(folder := tmp_path_factory.mktemp("model"))
    assert started(folder, everything, trust=False) == ["assembled", "sklearn"]


def test_a_models_own_code_finds_all_that_is_installed(tmp_path_factory, everything):
    small_checkpoints.save(folder := tmp_path_factory.mktemp("model"))
    (found,) = started(folder, everything, trust=True)
    assert found in UNUSED


def test_what_was_imported_before_stays_there():
    with imports.lean(("os", "nothing_here")):
        assert sys.modules["os"] is os
    assert sys.modules["os"] is os


def test_what_was_hidden_can_be_imported_afterwards(name):
    with pytest.raises(ModuleNotFoundError), imports.lean((name,)):
        __import__(name)
    assert name not in sys.modules


def test_what_is_installed_is_told_package_by_package():
    asked = []
    whole = metadata.packages_distributions

    def counted():
        asked.append(True)
        return whole()

    installed = Installed(counted)
    assert installed["torch"] == ["torch"]
    assert installed.get("msgspec") == ["msgspec"]
    assert not asked
    assert installed["zmq"] == ["pyzmq"]
    assert installed.get("nothing_here") is None
    assert dict(installed) == whole()
    assert len(installed) == len(whole())
    assert len(asked) == 1


def test_imports_ask_for_it_only_inside():
    whole, turn = metadata.packages_distributions, sys.getswitchinterval()
    with imports.lean():
        assert isinstance(metadata.packages_distributions(), Installed)
        assert sys.getswitchinterval() < turn
    assert metadata.packages_distributions is whole
    assert sys.getswitchinterval() == turn


def test_triton_knows_itself_before_it_is_asked():
    cache = pytest.importorskip("triton.runtime.cache", reason="'llmkernel[dev]' brings Triton")
    thread = imports.know_triton()
    assert thread is not None
    thread.join(60)
    assert cache.triton_key.cache_info().currsize == 1


def test_a_triton_that_breaks_is_none(monkeypatch, tmp_path):
    (tmp_path / "triton.py").write_text("raise RuntimeError('no driver')\n")
    for name in [name for name in sys.modules if name.partition(".")[0] == "triton"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(tmp_path)
    assert imports.know_triton() is None


def test_without_triton_nothing_is_to_be_known(monkeypatch):
    monkeypatch.setitem(sys.modules, "triton", None)
    assert imports.know_triton() is None


def test_the_collector_pauses_and_goes_on_whatever_happens():
    enabled = []
    with pytest.raises(ZeroDivisionError), collector.paused():
        enabled.append(gc.isenabled() / 0)
    assert (enabled, gc.isenabled()) == ([], True)


def test_the_collector_rests_meanwhile():
    with collector.paused():
        assert not gc.isenabled()
    assert gc.isenabled()


def test_what_was_imported_is_not_looked_through_again(monkeypatch):
    with collector.importing():
        pass
    frozen = gc.get_freeze_count()
    try:
        with collector.importing():
            monkeypatch.setitem(sys.modules, "just_imported", gc)
        assert gc.get_freeze_count() > frozen
    finally:
        gc.unfreeze()
    assert gc.isenabled()


def test_a_collector_that_is_off_stays_off():
    gc.disable()
    try:
        with collector.paused():
            assert not gc.isenabled()
        assert not gc.isenabled()
    finally:
        gc.enable()
