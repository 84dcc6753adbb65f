"""Pickled weights become safetensors without anything in them being run."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import hub_server
import pytest
import small_checkpoints
import torch
from click.testing import CliRunner
from safetensors.torch import load_file
from small_checkpoints import load_quietly

from llmkernel.errors import (
    BrokenCheckpoint,
    InvalidRequest,
    ModelNotFound,
    UnsafeCheckpoint,
)
from llmkernel.worker.checkpoint import INDEX, SINGLE
from llmkernel.worker.convert import PICKLE, PICKLE_INDEX, convert, main


@pytest.fixture
def pickled(tmp_path: Path) -> Path:
    """A model as it was saved before safetensors."""
    folder = tmp_path / "pickled"
    small_checkpoints.save(folder)
    torch.save(load_file(folder / SINGLE), folder / PICKLE)
    (folder / SINGLE).unlink()
    return folder


class Trap:
    """Runs a command when it is unpickled."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.canary}",)


def silent(_: str) -> None:
    pass


def test_the_refusal_names_the_command_that_helps(pickled: Path, tmp_path: Path) -> None:
    with pytest.raises(UnsafeCheckpoint) as caught:
        load_quietly(pickled)
    command = f"python -m llmkernel.worker.convert {pickled} FOLDER"
    assert command in caught.value.message
    done = CliRunner().invoke(main, [str(pickled), str(tmp_path / "new")])
    assert done.exit_code == 0, done.output
    assert load_quietly(tmp_path / "new")[0].info.parameters > 0


def test_every_tensor_arrives_bit_for_bit(pickled: Path, tmp_path: Path) -> None:
    stored = torch.load(pickled / PICKLE, weights_only=True)
    stored |= {
        "nan": torch.tensor([float("nan"), -0.0]),
        "half": torch.ones(3, dtype=torch.float16),
        "scalar": torch.tensor(3.5),
        "empty": torch.zeros(0, 4),
        "turned": torch.arange(6.0).view(2, 3).T,
    }
    torch.save(stored, pickled / PICKLE)
    convert(str(pickled), tmp_path / "new", tell=silent)
    new = load_file(tmp_path / "new" / SINGLE)
    assert new.keys() == stored.keys()
    for name, tensor in stored.items():
        assert new[name].dtype == tensor.dtype
        torch.testing.assert_close(new[name], tensor, rtol=0, atol=0, equal_nan=True)


def test_tensors_that_share_memory_are_both_kept(pickled: Path, tmp_path: Path) -> None:
    stored = torch.load(pickled / PICKLE, weights_only=True)
    stored["lm_head.weight"] = stored["model.embed_tokens.weight"]
    torch.save({"state_dict": stored}, pickled / PICKLE)
    convert(str(pickled), tmp_path / "new", tell=silent)
    assert load_file(tmp_path / "new" / SINGLE).keys() == stored.keys()


def test_shards_stay_shards(pickled: Path, tmp_path: Path) -> None:
    cut(pickled)
    convert(str(pickled), tmp_path / "new", tell=silent)
    shards = sorted(path.name for path in (tmp_path / "new").glob("*.safetensors"))
    assert shards == [f"model-0000{part}-of-00002.safetensors" for part in (1, 2)]
    assert set(json.loads((tmp_path / "new" / INDEX).read_text())["weight_map"].values()) == set(
        shards
    )
    assert not (tmp_path / "new" / PICKLE_INDEX).exists()
    assert load_quietly(tmp_path / "new")[0].info.parameters > 0


def test_a_missing_shard_is_named(pickled: Path, tmp_path: Path) -> None:
    cut(pickled)
    (pickled / "part-1.bin").unlink()
    with pytest.raises(BrokenCheckpoint, match=r"part-1\.bin"):
        convert(str(pickled), tmp_path / "new", tell=silent)


@pytest.mark.parametrize("how", ["torch", "pickle"])
def test_a_booby_trap_is_not_sprung(pickled: Path, tmp_path: Path, how: str) -> None:
    canary = tmp_path / "canary"
    content = {"weight": torch.ones(2), "trap": Trap(canary)}
    if how == "torch":
        torch.save(content, pickled / PICKLE)
    else:
        (pickled / PICKLE).write_bytes(pickle.dumps({"trap": Trap(canary)}))
    with pytest.raises((UnsafeCheckpoint, BrokenCheckpoint)):
        convert(str(pickled), tmp_path / "new", tell=silent)
    with pytest.raises(UnsafeCheckpoint):
        load_quietly(pickled)
    assert not canary.exists()
    assert os.listdir(tmp_path) == ["pickled"]


@pytest.mark.parametrize("data", [b"", b"nonsense", b"PK\x03\x04torn"])
def test_a_file_that_is_no_pickle_is_an_error(pickled: Path, tmp_path: Path, data: bytes) -> None:
    (pickled / PICKLE).write_bytes(data)
    with pytest.raises((BrokenCheckpoint, UnsafeCheckpoint), match=PICKLE):
        convert(str(pickled), tmp_path / "new", tell=silent)


@pytest.mark.parametrize("content", [[], {}, {"a": 3}, {"a": torch.ones(1), "b": "text"}, 5])
def test_a_pickle_without_a_table_of_tensors_is_an_error(
    pickled: Path, tmp_path: Path, content: object
) -> None:
    torch.save(content, pickled / PICKLE)
    with pytest.raises(BrokenCheckpoint, match=PICKLE):
        convert(str(pickled), tmp_path / "new", tell=silent)


def test_what_is_there_is_not_written_over(pickled: Path, tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "precious").write_text("")
    with pytest.raises(InvalidRequest, match="there already"):
        convert(str(pickled), tmp_path / "new", tell=silent)
    (tmp_path / "new" / "precious").unlink()
    convert(str(pickled), tmp_path / "new", tell=silent)
    assert (tmp_path / "new" / SINGLE).exists()


def test_a_model_without_pickles_needs_no_conversion(tmp_path: Path) -> None:
    small_checkpoints.save(tmp_path / "m")
    done = CliRunner().invoke(main, [str(tmp_path / "m"), str(tmp_path / "new")])
    assert done.exit_code == 1
    assert PICKLE in done.output
    with pytest.raises(ModelNotFound):
        convert(str(tmp_path / "m"), tmp_path / "new", tell=silent)


def test_a_model_off_the_hub_is_fetched_and_converted(
    pickled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    with hub_server.serving(pickled) as server:
        template = constants.HUGGINGFACE_CO_URL_TEMPLATE
        monkeypatch.setattr(
            constants,
            "HUGGINGFACE_CO_URL_TEMPLATE",
            template.replace(constants.ENDPOINT, server.url),
        )
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        convert("org/model", tmp_path / "new", tell=silent)
    assert load_quietly(tmp_path / "new")[0].info.has_chat_template


def cut(folder: Path) -> None:
    """Cut the pickle into two shards with an index."""
    stored = torch.load(folder / PICKLE, weights_only=True)
    (folder / PICKLE).unlink()
    names = sorted(stored)
    places = {name: f"part-{i % 2}.bin" for i, name in enumerate(names)}
    for part in set(places.values()):
        torch.save({name: stored[name] for name in names if places[name] == part}, folder / part)
    (folder / PICKLE_INDEX).write_text(json.dumps({"weight_map": places}))
