"""What is seen of a folder before anything is loaded: whole, or refused with the reason."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path

import pytest
import small_checkpoints
from safetensors import SafetensorError, safe_open

from llmkernel.errors import (
    BrokenCheckpoint,
    ModelNotFound,
    StartFailed,
    UnsafeCheckpoint,
    UnsupportedModel,
)
from llmkernel.worker.checkpoint import INDEX, SINGLE, inspect, read_header


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    small_checkpoints.save(tmp_path, tokenizer=False)
    return tmp_path


def write(path: Path, header: object, data: bytes = b"", length: int | None = None) -> None:
    """A safetensors file by hand."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    size = len(text) if length is None else length
    path.write_bytes(size.to_bytes(8, "little") + text + data)


def test_a_whole_checkpoint_is_known_before_it_is_read(folder: Path) -> None:
    found = inspect(folder, "m")
    assert found.config["model_type"] == "llama"
    assert found.tensors["model.norm.weight"].shape == (64,)
    assert found.stored_bytes == sum(
        safe_open(folder / SINGLE, "pt").get_tensor(name).nbytes for name in found.tensors
    )
    assert found.quantization is None
    assert not found.brings_code


def test_shards_are_one_checkpoint(folder: Path) -> None:
    whole = inspect(folder, "m")
    small_checkpoints.shard(folder)
    assert inspect(folder, "m").tensors.keys() == whole.tensors.keys()
    assert inspect(folder, "m").stored_bytes == whole.stored_bytes


def test_a_missing_shard_is_named(folder: Path) -> None:
    names = small_checkpoints.shard(folder)
    (folder / names[1]).unlink()
    with pytest.raises(BrokenCheckpoint, match=f"1 of 3 shards are missing, {names[1]}"):
        inspect(folder, "m")


def test_a_torn_shard_is_named_with_both_sizes(folder: Path) -> None:
    names = small_checkpoints.shard(folder)
    whole = (folder / names[2]).read_bytes()
    (folder / names[2]).write_bytes(whole[:-10])
    with pytest.raises(BrokenCheckpoint, match=f"{names[2]} is torn") as caught:
        inspect(folder, "m")
    assert caught.value.data["needed"] - caught.value.data["found"] == 10


def test_a_tensor_that_the_index_places_wrongly_is_named(folder: Path) -> None:
    names = small_checkpoints.shard(folder)
    index = json.loads((folder / INDEX).read_text())
    moved = next(name for name, place in index["weight_map"].items() if place == names[0])
    index["weight_map"][moved] = names[1]
    (folder / INDEX).write_text(json.dumps(index))
    with pytest.raises(BrokenCheckpoint, match=f"{names[1]} lacks 1 tensors.*{moved}"):
        inspect(folder, "m")


@pytest.mark.parametrize(
    "index",
    ["", "[]", "{}", '{"weight_map": []}', '{"weight_map": {}}', '{"weight_map": {"a": 3}}'],
)
def test_an_index_that_is_none_is_refused(folder: Path, index: str) -> None:
    small_checkpoints.shard(folder)
    (folder / INDEX).write_text(index)
    with pytest.raises(BrokenCheckpoint, match="index"):
        inspect(folder, "m")


def test_an_index_without_what_transformers_needs_of_it_is_refused_by_name(folder: Path) -> None:
    small_checkpoints.shard(folder)
    for metadata in (None, []):
        small_checkpoints.edit(folder / INDEX, metadata=metadata)
        with pytest.raises(BrokenCheckpoint, match=f"{INDEX} has no 'metadata'"):
            inspect(folder, "m")


@pytest.mark.parametrize("place", ["../other.safetensors", "/etc/x.safetensors", "a/b.safetensors"])
def test_an_index_reaches_no_file_outside(folder: Path, place: str) -> None:
    small_checkpoints.shard(folder)
    (folder / INDEX).write_text(json.dumps({"weight_map": {"a": place}}))
    with pytest.raises(BrokenCheckpoint, match="outside of the folder"):
        inspect(folder, "m")


def test_an_index_names_no_pickles(folder: Path) -> None:
    small_checkpoints.shard(folder)
    (folder / INDEX).write_text(json.dumps({"weight_map": {"a": "model.bin"}}))
    with pytest.raises(UnsafeCheckpoint, match=r"model\.bin"):
        inspect(folder, "m")


GOOD = {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}
LIES = {
    "offsets beyond the data": {"a": GOOD | {"data_offsets": [0, 99], "shape": [99]}},
    "shape against size": {"a": GOOD | {"shape": [2, 3]}},
    "overlap": {"a": GOOD, "b": GOOD | {"data_offsets": [8, 24]}},
    "hole": {"a": GOOD, "b": GOOD | {"data_offsets": [20, 36]}},
    "negative shape": {"a": GOOD | {"shape": [-2, -2]}},
    "negative offset": {"a": GOOD | {"data_offsets": [-16, 0]}},
    "backwards": {"a": GOOD | {"data_offsets": [16, 0]}},
    "float": {"a": GOOD | {"data_offsets": [0.0, 16.0]}},
    "bool": {"a": GOOD | {"shape": [True, 4]}},
    "unknown dtype": {"a": GOOD | {"dtype": "F31"}},
    "no dtype": {"a": {"shape": [4], "data_offsets": [0, 16]}},
    "no table": {"a": [1, 2]},
    "three offsets": {"a": GOOD | {"data_offsets": [0, 8, 16]}},
    "list": [GOOD],
    "huge": {"a": GOOD | {"shape": [2**62, 2**62]}},
}


@pytest.mark.parametrize("lie", LIES)
def test_a_header_that_lies_is_refused(tmp_path: Path, lie: str) -> None:
    data = bytes({"overlap": 24, "hole": 36}.get(lie, 16))  # so that the size is no giveaway
    write(tmp_path / "a.safetensors", LIES[lie], data)
    with pytest.raises(BrokenCheckpoint, match=r"a\.safetensors is (broken|torn)"):
        read_header(tmp_path / "a.safetensors")


@pytest.mark.parametrize(
    "data", [b"", b"\x00", bytes(8), b"\xff" * 8, b"\x02" + bytes(7), b"\x02" + bytes(7) + b"{"]
)
def test_a_stump_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.safetensors").write_bytes(data)
    with pytest.raises(BrokenCheckpoint, match="torn"):
        read_header(tmp_path / "a.safetensors")


def test_a_header_nested_without_end_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "a.safetensors", b"[" * 200_000)
    with pytest.raises(BrokenCheckpoint, match="not JSON"):
        read_header(tmp_path / "a.safetensors")


def accepted(path: Path) -> bool:
    try:
        read_header(path)
    except BrokenCheckpoint:
        return False
    return True


def accepted_by_the_library(path: Path) -> bool:
    try:
        with safe_open(path, "pt"):
            return True
    except SafetensorError:
        return False


def test_of_random_damage_the_library_accepts_the_same(folder: Path) -> None:
    whole, choice = (folder / SINGLE).read_bytes(), random.Random(0)
    end = 8 + int.from_bytes(whole[:8], "little")
    target = folder / "damaged.safetensors"
    verdicts = []
    for _ in range(600):
        header = json.loads(whole[8:end])
        data = whole[end : choice.choice([None, None, None, -4])]
        for _ in range(choice.randrange(3)):
            entry = header[choice.choice([name for name in header if name != "__metadata__"])]
            place = choice.choice(["shape", "data_offsets"])
            entry[place][choice.randrange(len(entry[place]))] += choice.choice([-64, -1, 1, 256])
            entry["dtype"] = choice.choice(["F32", "F32", "F32", "I32", "F16", "X"])
        write(target, header, data)
        verdicts.append(accepted(target))
        assert verdicts[-1] == accepted_by_the_library(target), header
    assert 20 < sum(verdicts) < 580


def test_of_random_bytes_nothing_but_a_refusal_comes(folder: Path) -> None:
    whole, choice = (folder / SINGLE).read_bytes(), random.Random(0)
    target = folder / "damaged.safetensors"
    for _ in range(300):
        data = bytearray(whole[: choice.randrange(4000)])
        for _ in range(choice.randrange(4)):
            data[choice.randrange(len(data)) if data else 0 :] = choice.randbytes(3)
        target.write_bytes(data)
        assert not accepted(target)


@pytest.mark.parametrize(
    ("names", "error", "text"),
    [
        (["config.json", "pytorch_model.bin"], UnsafeCheckpoint, "convert m FOLDER"),
        (["config.json", "consolidated.00.pth"], UnsafeCheckpoint, "convert"),
        (["adapter_config.json", "adapter_model.safetensors"], UnsupportedModel, "adapter"),
        (["m-q4.gguf"], UnsupportedModel, "GGUF"),
        (["README.md"], ModelNotFound, r"config\.json"),
        ([SINGLE], ModelNotFound, r"config\.json"),
        (["config.json"], BrokenCheckpoint, "neither"),
        ([], ModelNotFound, r"config\.json"),
    ],
)
def test_other_formats_are_refused_with_the_way_out(
    tmp_path: Path, names: list[str], error: type[StartFailed], text: str
) -> None:
    for name in names:
        (tmp_path / name).write_text("{}")
    with pytest.raises(error, match=text):
        inspect(tmp_path, "m")


@pytest.mark.parametrize("text", ["", "{", "[]", "\xff", "null"])
def test_a_configuration_that_is_none_is_refused(folder: Path, text: str) -> None:
    (folder / "config.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(BrokenCheckpoint, match=r"config\.json"):
        inspect(folder, "m")


@pytest.mark.parametrize("name", ["config.json", SINGLE, "chat_template.jinja"])
@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_what_never_ends_is_not_read(folder: Path, name: str, kind: str) -> None:
    (folder / name).unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(folder / name)
    else:
        (folder / name).symlink_to("/dev/zero")
    with pytest.raises(BrokenCheckpoint, match="no regular file"):
        inspect(folder, "m")


def test_a_configuration_beyond_all_measure_is_not_read(folder: Path) -> None:
    with (folder / "config.json").open("wb") as file:
        file.truncate(2**30)
    with pytest.raises(BrokenCheckpoint, match="larger than"):
        inspect(folder, "m")
