"""Weights that are kept for the next start: the same model, or read again from its files."""

from __future__ import annotations

import gc
import hashlib
import json
import logging
import os
import subprocess
import sys
import weakref
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
import small_checkpoints
import torch
from safetensors.torch import load_file, save_file
from small_checkpoints import edit, load_quietly
from torch import nn

from llmkernel.config import WorkerConfig
from llmkernel.errors import NotEnoughMemory
from llmkernel.worker import memory, weights
from llmkernel.worker.cache import identity, keeper, manifest, structure, transfer
from llmkernel.worker.cache.checksum import checksum
from llmkernel.worker.cache.manifest import NAME, Manifest, Torn
from llmkernel.worker.cache.shelf import Shelf
from llmkernel.worker.cache.structure import Unkept, put_together, take
from llmkernel.worker.formats.matrix import Matrix, pack
from llmkernel.worker.kernels import tiles
from llmkernel.worker.models import ATTENTION
from llmkernel.worker.models.packed import Merged, PackedLinear, Part
from tests.formats import packers

CPU = torch.device("cpu")
LAYOUT_BYTES = "61e55a47f1a8a397"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LLMKERNEL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "weights"


def quantised(folder: Path, kind: str = "llama", **stored: Any) -> Path:
    """A GPTQ checkpoint, or what `stored` says."""
    config = small_checkpoints.families()[kind]
    packers.save(folder, config, stored or packers.GPTQ)
    return folder / "quantised"


def state(model: nn.Module) -> dict[str, torch.Tensor]:
    """Every tensor, those that are not saved too."""
    return dict(model.named_parameters(remove_duplicate=False)) | dict(
        model.named_buffers(remove_duplicate=False)
    )


def codes(model: Any) -> dict[str, tuple[float, ...]]:
    return {name: m.code for name, m in model.named_modules() if isinstance(m, PackedLinear)}


def assert_same(one: Any, other: Any) -> None:
    """Two models with the same modules and the same tensors."""
    assert [(n, type(m)) for n, m in one.named_modules()] == [
        (n, type(m)) for n, m in other.named_modules()
    ]
    first, second = state(one), state(other)
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert (tensor.dtype, tensor.device) == (second[name].dtype, second[name].device), name
        assert torch.equal(tensor, second[name]), name
        assert type(tensor) is type(second[name]), name
    assert one.state_dict().keys() == other.state_dict().keys()
    assert codes(one) == codes(other)
    assert not any(module.training for module in other.modules())
    assert one.config._attn_implementation == other.config._attn_implementation == ATTENTION
    assert one.dtype == other.dtype
    assert one.config.dtype == other.config.dtype


def entries(cache: Path) -> list[Path]:
    return sorted(cache.iterdir()) if cache.exists() else []


CHECKPOINTS: list[tuple[str, dict[str, Any]]] = [
    ("llama", packers.GPTQ),
    ("llama", packers.AWQ),
    ("qwen3", packers.GPTQ | {"desc_act": True, "sym": False}),
    ("qwen2", packers.AWQ),
    ("gpt2", packers.GPTQ),
    ("gemma2", packers.GPTQ),
    ("falcon", packers.GPTQ),
]


@pytest.mark.parametrize(("kind", "stored"), CHECKPOINTS)
def test_the_second_start_has_the_same_model(
    tmp_path: Path, cache: Path, kind: str, stored: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = quantised(tmp_path, kind, **stored)
    first, steps = load_quietly(folder)
    assert "keep" in {step.stage for step in steps}
    monkeypatch.setattr("llmkernel.worker.weights.read", lambda *_: pytest.fail("was read again"))
    second, steps = load_quietly(folder)
    assert_same(first.model, second.model)
    assert first.info == second.info
    assert steps[-1].stage == "read"
    assert steps[-1].done == steps[-1].total > 0
    assert len(entries(cache)) == 1


def test_tied_embeddings_stay_one_tensor(tmp_path: Path, cache: Path) -> None:
    config = small_checkpoints.config(tie_word_embeddings=True)
    packers.save(tmp_path, config, packers.GPTQ)
    first, second = (load_quietly(tmp_path / "quantised")[0].model for _ in range(2))
    assert len(entries(cache)) == 1
    assert second.lm_head.weight is second.model.embed_tokens.weight
    assert_same(first, second)
    kept = read_manifest(entries(cache)[0])
    assert kept.aliases == {"lm_head.weight": "model.embed_tokens.weight"}


@pytest.mark.parametrize("kind", ["llama", "qwen3", "qwen2"])
@pytest.mark.parametrize("tied", [False, True])
def test_merged_layers_come_back_merged(tmp_path: Path, kind: str, tied: bool) -> None:
    model = merged_model(kind, tied)
    taken = take(model, empty(model))
    files = transfer.write(taken.tensors, tmp_path, lambda _: None)
    tensors = transfer.read(tmp_path, files, CPU, lambda _: None)
    transfer.check(tensors, transfer.sums(taken.tensors))
    again = put_together(empty(model), taken._replace(tensors=tensors))
    assert_same(model, again)
    ids = torch.arange(20)[None]
    for one in (model, again):
        one.set_attn_implementation("sdpa")
    assert torch.equal(model(ids).logits, again(ids).logits)
    part = again.model.layers[1].self_attn.v_proj
    assert part.merged is again.model.layers[1].self_attn.q_proj.merged


def merged_model(kind: str, tied: bool) -> Any:
    """As `pack_layers` leaves a model on a GPU, but computed by torch."""
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    config = small_checkpoints.families()[kind]
    config.tie_word_embeddings = tied
    options = {"attn_implementation": ATTENTION, "dtype": torch.float32}
    model = AutoModelForCausalLM.from_config(config, **options).eval()
    for layer in model.model.layers:
        merge(layer.self_attn, ("q_proj", "k_proj", "v_proj"))
        merge(layer.mlp, ("gate_proj", "up_proj"))
        layer.self_attn.o_proj = packed_linear([layer.self_attn.o_proj])
        layer.mlp.down_proj = packed_linear([layer.mlp.down_proj])
    return model


def merge(parent: Any, names: tuple[str, ...]) -> None:
    layers = [getattr(parent, name) for name in names]
    linear = packed_linear(layers)
    merged = Merged(linear, [layer.out_features for layer in layers])
    for index, (name, layer) in enumerate(zip(names, layers, strict=True)):
        setattr(parent, name, Part(merged, index, layer.in_features, layer.out_features))


def packed_linear(layers: list[Any]) -> PackedLinear:
    rows, columns = sum(layer.out_features for layer in layers), layers[0].in_features
    nibbles = torch.randint(0, 256, (rows, columns // 2), dtype=torch.uint8)
    scales = torch.rand(rows, columns // 64) / 10
    packed = tiles.narrow(tiles.pack(nibbles, scales, torch.linspace(-1, 1, 16)))
    biases = [layer.bias for layer in layers]
    bias = None if biases[0] is None else torch.cat(biases).detach()
    return PackedLinear(packed, bias, kernels=False)


def empty(model: Any) -> Any:
    return memory.empty_model(model.config, attn_implementation=ATTENTION, dtype=model.dtype)


def test_a_model_without_packed_layers_is_not_kept(tmp_path: Path, cache: Path) -> None:
    small_checkpoints.save(tmp_path / "m")
    for _ in range(2):
        _, steps = load_quietly(tmp_path / "m")
        assert "keep" not in {step.stage for step in steps}
    assert entries(cache) == []


def test_a_model_of_other_modules_is_not_kept() -> None:
    model = merged_model("llama", tied=False)
    model.model.layers[0].self_attn.o_proj = nn.Identity()
    with pytest.raises(Unkept, match=r"layers\.0\.self_attn\.o_proj is another module"):
        take(model, empty(model))
    model = merged_model("llama", tied=False)
    model.model.norm.to(torch.float8_e4m3fn)
    with pytest.raises(Unkept, match=r"model\.norm\.weight is torch.float8_e4m3fn"):
        take(model, empty(model))
    model = merged_model("llama", tied=False)
    model.model.norm.secret = torch.ones(1)
    with pytest.raises(Unkept, match=r"model\.norm\.secret is a tensor"):
        take(model, empty(model))


def test_it_can_be_switched_off(tmp_path: Path, cache: Path) -> None:
    load_quietly(quantised(tmp_path), weight_cache=False)
    assert entries(cache) == []


@pytest.mark.parametrize("settings", [{"dtype": "bfloat16"}, {"dtype": "float16"}])
def test_other_settings_are_other_weights(
    tmp_path: Path, cache: Path, settings: dict[str, str]
) -> None:
    folder = quantised(tmp_path)
    load_quietly(folder)
    first, second = (load_quietly(folder, **settings)[0].model for _ in range(2))
    assert len(entries(cache)) == 2
    assert_same(first, second)


def test_a_changed_checkpoint_is_read_again(tmp_path: Path, cache: Path) -> None:
    folder = quantised(tmp_path)
    before = load_quietly(folder)[0].model
    file = folder / "model.safetensors"
    facts = file.stat()
    tensors = load_file(file)
    tensors["lm_head.weight"] *= 2
    save_file(tensors, file, metadata={"format": "pt"})
    os.utime(file, ns=(facts.st_atime_ns, facts.st_mtime_ns))  # as archives do
    after = load_quietly(folder)[0].model
    assert len(entries(cache)) == 2
    assert not torch.equal(before.lm_head.weight, after.lm_head.weight)


def test_a_changed_configuration_is_another_model(tmp_path: Path, cache: Path) -> None:
    folder = quantised(tmp_path)
    load_quietly(folder)
    edit(folder / "config.json", rope_theta=5000.0, rope_parameters=None)
    load_quietly(folder)
    assert len(entries(cache)) == 2


def torn(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def zeroed(path: Path) -> None:
    """A page that never reached the disk."""
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 4096] = bytes(4096)
    path.write_bytes(data)


def flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-7] ^= 4
    path.write_bytes(data)


def gone(path: Path) -> None:
    path.unlink()


def open_to_all(path: Path) -> None:
    path.chmod(0o666)


def linked(path: Path) -> None:
    path.rename(path.parent.parent / "elsewhere")
    path.symlink_to(path.parent.parent / "elsewhere")


@pytest.mark.parametrize("spoil", [torn, zeroed, flipped, gone, open_to_all, linked])
@pytest.mark.parametrize("file", ["weights-001.safetensors", "manifest.json"])
def test_what_cannot_be_trusted_is_made_again(
    tmp_path: Path, cache: Path, file: str, spoil: Any, caplog: pytest.LogCaptureFixture
) -> None:
    if spoil is zeroed and file == "manifest.json":
        pytest.skip("it has no page")
    folder = quantised(tmp_path)
    first = load_quietly(folder)[0].model
    (entry,) = entries(cache)
    spoil(entry / file)
    with caplog.at_level(logging.WARNING, "llmkernel"):
        second, steps = load_quietly(folder)
    assert "made again" in caplog.text
    assert "keep" in {step.stage for step in steps}
    assert_same(first, second.model)
    caplog.clear()
    third, steps = load_quietly(folder)
    assert "keep" not in {step.stage for step in steps}
    assert_same(first, third.model)


def test_a_link_in_place_of_kept_weights_goes_and_what_it_leads_to_stays(
    tmp_path: Path, cache: Path
) -> None:
    folder = quantised(tmp_path)
    load_quietly(folder)
    (entry,) = entries(cache)
    entry.rename(tmp_path / "elsewhere")
    entry.symlink_to(tmp_path / "elsewhere")
    before = sorted((tmp_path / "elsewhere").iterdir())
    _, steps = load_quietly(folder)
    assert "keep" in {step.stage for step in steps}
    assert list(entry.parent.iterdir()) == [entry]
    assert not entry.is_symlink()
    assert sorted((tmp_path / "elsewhere").iterdir()) == before


def read_manifest(entry: Path) -> Manifest:
    return msgspec.json.decode(
        json.dumps(json.loads((entry / NAME).read_text())["body"]), type=Manifest
    )


def reseal(entry: Path, **changes: Any) -> None:
    """Change a manifest as if it had been written so."""
    manifest.write(entry, msgspec.structs.replace(read_manifest(entry), **changes))


def test_tensors_that_do_not_fit_the_model_are_made_again(tmp_path: Path, cache: Path) -> None:
    folder = quantised(tmp_path)
    first = load_quietly(folder)[0].model
    (entry,) = entries(cache)
    layers = read_manifest(entry).layers
    short = msgspec.structs.replace(layers[0], code=layers[0].code[:15])
    for changes in (
        {"layers": layers[1:]},
        {"layers": [short, *layers[1:]]},
        {"sums": {}},
        {"facts": {"layout": "0"}},
    ):
        reseal(entry, **changes)
        second, steps = load_quietly(folder)
        assert "keep" in {step.stage for step in steps}, changes
        assert_same(first, second.model)


def test_more_than_fits_the_device_is_refused(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = quantised(tmp_path)
    load_quietly(folder)
    monkeypatch.setattr(memory, "free_bytes", lambda _: 1000)
    with pytest.raises(NotEnoughMemory) as caught:
        load_quietly(folder)
    assert caught.value.data["free"] == 1000
    assert caught.value.data["needed"] > 1000


def test_a_full_disk_is_no_failed_start(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder = quantised(tmp_path)

    def full(*_: Any) -> Any:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(transfer, "_write_bytes", full)
    with caplog.at_level(logging.WARNING, "llmkernel"):
        load_quietly(folder)
    assert "could not be kept" in caplog.text
    assert entries(cache) == []


def test_no_memory_for_a_copy_is_no_failed_start(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder = quantised(tmp_path)

    def full(*_: Any) -> Any:
        raise torch.OutOfMemoryError("no memory")

    monkeypatch.setattr(transfer, "write", full)
    with caplog.at_level(logging.WARNING, "llmkernel"):
        load_quietly(folder)
    assert "could not be kept" in caplog.text
    assert entries(cache) == []


def test_the_folder_is_private(tmp_path: Path, cache: Path) -> None:
    load_quietly(quantised(tmp_path))
    (entry,) = entries(cache)
    for path in (cache.parent, cache, entry, *entry.iterdir()):
        assert path.stat().st_mode & 0o077 == 0 or path.name == "manifest.json", path
    assert (entry / "manifest.json").stat().st_mode & 0o022 == 0


def filled(amount: int) -> Any:
    return lambda folder: (folder / "weights").write_bytes(bytes(amount)) and None


def test_the_least_recently_used_make_room(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path / "w", 1000)
    for index, key in enumerate(("a", "b", "c")):
        assert shelf.add(key, 300, filled(300))
        os.utime(tmp_path / "w" / key, (index, index))
    os.utime(tmp_path / "w" / "a")
    assert shelf.add("d", 300, filled(300))
    assert {path.name for path in (tmp_path / "w").iterdir()} == {"a", "c", "d"}
    assert not shelf.add("e", 1001, filled(1001))
    assert {path.name for path in (tmp_path / "w").iterdir()} == {"a", "c", "d"}


def test_what_is_found_was_used(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path / "w", 1000)
    made = Manifest({"a": "b"}, 0, {}, {}, {}, [])
    for key in ("a", "b"):
        assert shelf.add(key, 10, lambda folder: manifest.write(folder, made))
        os.utime(tmp_path / "w" / key, (1, 1))
    assert shelf.find("a", {"a": "b"}) is not None
    assert shelf.find("none", {}) is None
    assert (tmp_path / "w" / "a").stat().st_mtime > (tmp_path / "w" / "b").stat().st_mtime


def loosen(path: Path) -> None:
    path.chmod(path.stat().st_mode | 0o020)


def redirect(path: Path) -> None:
    moved = path.rename(path.with_name(path.name + ".moved"))
    path.symlink_to(moved)


@pytest.mark.parametrize("which", [".", "a", "a/manifest.json"], ids=["root", "folder", "file"])
@pytest.mark.parametrize("change", [loosen, redirect])
def test_what_others_could_have_written_is_not_used(
    tmp_path: Path, which: str, change: Any
) -> None:
    shelf = Shelf(tmp_path / "w", 1000)
    made = Manifest({"a": "b"}, 0, {}, {}, {}, [])
    assert shelf.add("a", 10, lambda folder: manifest.write(folder, made))
    change(tmp_path / "w" / which)
    assert shelf.find("a", {"a": "b"}) is None
    assert not (tmp_path / "w" / "a").exists()


def test_what_belongs_to_another_user_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf = Shelf(tmp_path / "w", 1000)
    made = Manifest({"a": "b"}, 0, {}, {}, {}, [])
    assert shelf.add("a", 10, lambda folder: manifest.write(folder, made))
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    assert shelf.find("a", {"a": "b"}) is None


def test_what_a_killed_process_left_is_swept(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, 1000)
    elsewhere = tmp_path.parent / f"{tmp_path.name}-elsewhere"
    elsewhere.mkdir()
    for name, age in ((".old.1", 7200), (".new.2", 10)):
        (tmp_path / name).mkdir()
        moment = (tmp_path / name).stat().st_mtime - age
        os.utime(tmp_path / name, (moment, moment))
    (tmp_path / ".link.3").symlink_to(elsewhere)
    (tmp_path / ".nowhere.4").symlink_to(tmp_path / "nothing")
    (tmp_path / ".file.5").write_text("")
    for name in (".link.3", ".nowhere.4", ".file.5"):
        os.utime(tmp_path / name, (moment - 7200, moment - 7200), follow_symlinks=False)
    shelf.add("a", 1, filled(1))
    assert {path.name for path in tmp_path.iterdir()} == {".new.2", "a"}
    assert elsewhere.is_dir()


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 4096 * 8, 4096 * 8 * 3 + 5])
def test_the_checksum_sees_every_byte_and_its_place(count: int) -> None:
    generator = torch.Generator().manual_seed(count)
    data = torch.randint(0, 256, (count,), dtype=torch.uint8, generator=generator)
    whole = int(checksum(data))
    for place in {0, count // 2, count - 1} if count else ():
        changed = data.clone()
        changed[place] ^= 128
        assert int(checksum(changed)) != whole
    if count > 16:
        assert int(checksum(data.roll(8))) != whole
        assert int(checksum(data.roll(1))) != whole
    assert int(checksum(torch.cat([data, data.new_zeros(8)]))) != whole


@pytest.mark.parametrize("sizes", [(0,), (1, 3, 5), (100, 0, 7), (64, 64)])
def test_tensors_pass_through_buffers_of_any_size(
    tmp_path: Path, sizes: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "_PIECE", 16)
    monkeypatch.setattr(transfer, "_FILE", 64)
    tensors = {f"t{index}": torch.randn(size, 3) for index, size in enumerate(sizes)}
    tensors["half"] = torch.randn(5).to(torch.bfloat16)
    tensors["view"] = torch.arange(20, dtype=torch.int16)[3:10]
    tensors["number"] = torch.tensor(7.0)
    counted: list[int] = []
    files = transfer.write(tensors, tmp_path, counted.append)
    assert sum(counted) == sum(tensor.nbytes for tensor in tensors.values())
    read = transfer.read(tmp_path, files, CPU, counted.append)
    transfer.check(read, transfer.sums(tensors))
    assert read.keys() == tensors.keys()
    assert all(torch.equal(read[name], tensor) for name, tensor in tensors.items())


def test_the_files_are_safetensors(tmp_path: Path) -> None:
    tensors = {"a": torch.randn(5, 3), "b": torch.arange(4, dtype=torch.uint8)}
    files = transfer.write(tensors, tmp_path, lambda _: None)
    (name,) = files
    assert all(torch.equal(load_file(tmp_path / name)[key], tensors[key]) for key in tensors)


def test_what_was_read_is_gone_before_the_model_is_read_again(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packers.save(tmp_path, small_checkpoints.config(), packers.GPTQ)
    load_quietly(tmp_path / "quantised")
    # pytest keeps what is logged, and what an exception has seen with it
    logged: list[str] = []
    log = SimpleNamespace(exception=logged.append, info=lambda *_: None)
    monkeypatch.setattr(keeper, "_log", log)
    seen: list[Any] = []
    alive: list[int] = []

    def refused(jobs: Any, filled: dict[str, torch.Tensor], *_: Any) -> None:
        seen.extend(map(weakref.ref, filled.values()))
        raise RuntimeError("the driver")

    read = weights.read

    def counted(*arguments: Any) -> Any:
        alive.append(sum(tensor() is not None for tensor in seen))
        return read(*arguments)

    monkeypatch.setattr(transfer, "_read_all", refused)
    monkeypatch.setattr(weights, "read", counted)
    gc.disable()  # which might do by chance what is asked for
    try:
        load_quietly(tmp_path / "quantised")
    finally:
        gc.enable()
    assert seen
    assert alive == [0]
    assert logged == ["the kept weights are not used"]


@pytest.mark.parametrize(("dtype", "shape"), [("BF16", [4, 2]), ("F16", [8])])
def test_what_bytes_are_read_as_is_checked_too(
    tmp_path: Path, dtype: str, shape: list[int]
) -> None:
    tensors = {"a": torch.randn(4, 2).half()}
    files = transfer.write(tensors, tmp_path, lambda _: None)
    (name,) = files
    data = (tmp_path / name).read_bytes()
    length = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:length])
    header["a"] |= {"dtype": dtype, "shape": shape}
    text = json.dumps(header).encode()
    (tmp_path / name).write_bytes(len(text).to_bytes(8, "little") + text + data[length:])
    with pytest.raises(Torn, match="a is not as it was written"):
        transfer.check(transfer.read(tmp_path, files, CPU, lambda _: None), transfer.sums(tensors))


def test_a_name_in_two_files_is_torn_before_anything_is_read(tmp_path: Path) -> None:
    files = transfer.write({"a": torch.zeros(4)}, tmp_path, lambda _: None)
    (name,) = files
    (tmp_path / "again").write_bytes((tmp_path / name).read_bytes())
    with pytest.raises(Torn, match="same name"):
        transfer.read(tmp_path, files | {"again": 1}, CPU, pytest.fail)


def test_a_dtype_that_is_never_kept_is_torn(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(4).to(torch.float8_e4m3fn)}, tmp_path / "f")
    with pytest.raises(Torn, match="F8_E4M3"):
        transfer.read(tmp_path, {"f": 1}, CPU, pytest.fail)


def test_a_file_that_ends_while_it_is_read_is_torn(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"1234")
    with pytest.raises(OSError, match="ends too early"):
        transfer._read_range(tmp_path / "f", 2, memoryview(bytearray(4)))


def test_the_version_of_the_layout_is_raised_when_the_layout_changes() -> None:
    """Where this fails raise `identity.LAYOUT`, and put the new digest here."""
    values = (torch.arange(32 * 128).view(32, 128) * 37 // 11 % 16).to(torch.uint8)
    zeros = (torch.arange(64).view(32, 2) * 5 % 16).to(torch.uint8)
    scales = torch.arange(1, 65).view(32, 2) / 64
    groups = torch.arange(128) % 2
    packed = pack(Matrix(values, scales, zeros, 64, groups))
    digest = hashlib.blake2b(json.dumps(sorted(packed._fields)).encode(), digest_size=8)
    for linear in (
        PackedLinear(packed, None, kernels=False),
        PackedLinear(tiles.narrow(packed), None),
    ):
        for field, value in sorted(linear.packed._asdict().items()):
            digest.update(field.encode())
            if isinstance(value, torch.Tensor):
                digest.update(f"{value.dtype} {list(value.shape)}".encode())
                digest.update(transfer.octets(value).numpy().tobytes())
            else:
                digest.update(repr(value).encode())
    assert (identity.LAYOUT, digest.hexdigest()) == (4, LAYOUT_BYTES)


SECOND = """
import sys
from llmkernel.config import WorkerConfig
from llmkernel.worker.loader import load
steps = []
load(WorkerConfig.build(model=sys.argv[1], device="cpu"), lambda step: steps.append(step.stage))
wanted = {"bitsandbytes"} & sys.modules.keys()
assert "keep" not in steps, steps
assert not wanted, wanted
"""


def test_a_second_start_imports_no_bitsandbytes(tmp_path: Path, cache: Path) -> None:
    folder = quantised(tmp_path)
    load_quietly(folder)
    subprocess.run([sys.executable, "-c", SECOND, str(folder)], check=True, timeout=100)


def test_nothing_is_looked_for_where_nothing_would_be_packed(tmp_path: Path, cache: Path) -> None:
    small_checkpoints.save(tmp_path / "m")
    load_quietly(tmp_path / "m")
    assert not cache.exists()


def test_the_setting_is_on_where_it_is_left_out() -> None:
    assert WorkerConfig.build().weight_cache
    assert not WorkerConfig.build(weight_cache=False).weight_cache


def test_the_kernels_of_kept_layers_are_compared_before_they_serve(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = merged_model("llama", tied=False)
    asked: list[Any] = []
    monkeypatch.setattr(structure.packed, "agrees", lambda layer, _: asked.append(layer) or False)
    structure.spot_check(model, torch.float32)
    assert asked == []
    for module in model.modules():
        if isinstance(module, PackedLinear):
            module.kernels = True
    with pytest.raises(Torn, match="q_proj"):
        structure.spot_check(model, torch.float32)
    assert len(asked) == 1
