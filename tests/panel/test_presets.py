"""Presets that outlive a kernel: one file, for one user, whole or not at all."""

from __future__ import annotations

import os
import stat
import threading

import pytest

from llmkernel.errors import InvalidRequest
from llmkernel.notebook.panel.controls import PRESETS, Controls
from llmkernel.notebook.panel.presets import PresetFile

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def file(tmp_path):
    return PresetFile(tmp_path / "llmkernel" / "presets.json")


def test_what_one_panel_keeps_another_has_in_another_kernel(file):
    Controls(file, seed=4, stop=["\n"], typical_p=0.9).keep(" mine ", "Be brief.")
    later = Controls(PresetFile(file.path))
    later.reload()
    assert list(later.presets) == [*PRESETS, "mine"]
    assert later.take("mine") == "Be brief."
    assert later.values == {"seed": 4, "stop": ["\n"]}
    assert later.own == ["mine"]


def test_nobody_else_can_read_it_and_nothing_is_left_beside_it(file):
    Controls(file, seed=4).keep("mine", "")
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.path.parent.stat().st_mode) == 0o700
    assert os.listdir(file.path.parent) == ["presets.json"]


def test_panels_that_keep_at_the_same_time_lose_nothing(file):
    names = [f"preset {number}" for number in range(24)]
    threads = [threading.Thread(target=Controls(file).keep, args=(name, "x")) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(file.read()) == sorted(names)


def test_where_writing_fails_the_old_file_stays(file, monkeypatch):
    Controls(file, seed=4).keep("mine", "")
    before = file.path.read_bytes()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InvalidRequest, match="No space left"):
        Controls(file, seed=5).keep("other", "")
    assert file.path.read_bytes() == before
    assert os.listdir(file.path.parent) == ["presets.json"]


@pytest.mark.parametrize("data", [b"{", b"[1]", b'{"a": 3}', b"\xff\xfe", b"{" * 2_000_000])
def test_a_file_of_another_kind_is_named_and_left_as_it_is(file, data):
    file.path.parent.mkdir()
    file.path.write_bytes(data)
    for action in (Controls(file).reload, lambda: Controls(file).keep("mine", "")):
        with pytest.raises(InvalidRequest, match=r"presets\.json cannot be used"):
            action()
    assert file.path.read_bytes() == data


@pytest.mark.parametrize(
    "preset", ['{"temperature": -1}', '{"nonsense": 1}', '{"n": 4}', '{"system": 3}']
)
def test_values_that_cannot_be_change_nothing(file, preset):
    file.path.parent.mkdir()
    file.path.write_text(f'{{"odd": {preset}}}')
    controls = Controls(file, seed=4)
    controls.reload()
    with pytest.raises(InvalidRequest):
        controls.take("odd")
    assert controls.values == {"seed": 4}


@pytest.mark.parametrize("name", ["", "  ", "Exact", "x" * 61, "\x1b\x00"])
def test_a_preset_has_a_name_of_its_own(file, name):
    with pytest.raises(InvalidRequest, match="name of its own"):
        Controls(file).keep(name, "")
    assert not file.path.exists()


def test_a_preset_of_a_file_does_not_stand_in_for_one_of_ours(file):
    file.path.parent.mkdir()
    file.path.write_text('{"Exact": {"temperature": 2}, "mine": {}}')
    controls = Controls(file)
    controls.reload()
    controls.take("Exact")
    assert controls.values == {"temperature": 0.0}
    assert controls.own == ["mine"]


def test_what_was_kept_can_be_forgotten_and_ours_cannot(file):
    controls = Controls(file)
    controls.keep("mine", "")
    controls.keep("other", "")
    controls.forget("mine")
    assert list(file.read()) == ["other"]
    for name in ("mine", "Exact"):
        with pytest.raises(InvalidRequest):
            controls.forget(name)


def test_without_a_file_they_end_with_the_panel():
    controls = Controls(seed=1)
    controls.keep("mine", "")
    controls.reload()
    assert controls.own == ["mine"]
    controls.forget("mine")
    assert controls.own == []
