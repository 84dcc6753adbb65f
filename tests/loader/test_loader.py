"""Loading whole models: the same weights that were saved, or an error that says what is wrong."""

from __future__ import annotations

import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import small_checkpoints
import small_tokenizers
import torch
from safetensors.torch import load_file, save_file
from small_checkpoints import edit, load_quietly
from transformers import AutoModelForCausalLM

from llmkernel.config import WorkerConfig
from llmkernel.errors import (
    BrokenCheckpoint,
    InvalidRequest,
    NotEnoughMemory,
    StartFailed,
    UnsafeCheckpoint,
    UnsupportedModel,
)
from llmkernel.worker import checkpoint, loader, memory, quantization
from llmkernel.worker.checkpoint import SINGLE
from llmkernel.worker.models import ATTENTION, FAMILIES
from llmkernel.worker.placement import choose_device, longest_context

# bitsandbytes brings torch's deprecated script methods; int8 casts to float16 and says so
QUANTISED = pytest.mark.filterwarnings("ignore:.*script_method:DeprecationWarning")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    small_checkpoints.save(tmp_path / "m")
    return tmp_path / "m"


def test_the_weights_are_those_that_were_saved(folder: Path) -> None:
    loaded, steps = load_quietly(folder)
    saved = load_file(folder / SINGLE)
    state = loaded.model.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in saved.items())
    assert not loaded.model.training
    assert loaded.model.config._attn_implementation == ATTENTION
    assert (loaded.device, loaded.dtype) == (torch.device("cpu"), torch.float32)
    assert [step.stage for step in steps if step.done == 0] == ["resolve", "read"]
    assert steps[-1].done == steps[-1].total == len(saved)


def test_what_was_loaded_is_described(folder: Path) -> None:
    loaded, _ = load_quietly(folder)
    weights = sum(parameter.numel() for parameter in loaded.model.parameters())
    info = loaded.info
    assert (info.model, info.revision) == (str(folder), None)
    assert info.architecture == "LlamaForCausalLM"
    assert (info.quantization, info.dtype, info.device) == ("none", "float32", "cpu")
    assert (info.context_length, info.max_prompt_tokens) == (256, 255)
    assert info.vocab_size == 404
    assert info.parameters == weights
    assert info.weights_bytes == pytest.approx(4 * weights, rel=0.01)
    assert info.has_chat_template
    assert (info.kv_blocks, info.kv_cache_bytes) == (0, 0)


def test_shards_load_as_one(folder: Path) -> None:
    whole, _ = load_quietly(folder)
    small_checkpoints.shard(folder)
    parts, _ = load_quietly(folder)
    state = parts.model.state_dict()
    assert all(torch.equal(state[name], t) for name, t in whole.model.state_dict().items())


def test_tied_weights_need_no_copy_in_the_files(tmp_path: Path) -> None:
    small_checkpoints.save(tmp_path / "m", tie_word_embeddings=True)
    assert "lm_head.weight" not in load_file(tmp_path / "m" / SINGLE)
    loaded, _ = load_quietly(tmp_path / "m")
    assert loaded.model.lm_head.weight is loaded.model.model.embed_tokens.weight


def test_the_embedded_model_loads() -> None:
    loaded, _ = load_quietly("demo")
    assert loaded.info.model == "demo"
    assert loaded.info.quantization == "none"
    assert loaded.tokenizer.eos_token_ids


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_the_dtype_is_the_one_asked_for(folder: Path, dtype: str) -> None:
    loaded, _ = load_quietly(folder, dtype=dtype)
    assert {str(p.dtype) for p in loaded.model.parameters()} == {f"torch.{dtype}"}
    assert loaded.info.dtype == dtype


@QUANTISED
@pytest.mark.parametrize("name", ["nf4", "fp4", "int8"])
def test_weights_are_quantised_while_they_are_read(folder: Path, name: str) -> None:
    loaded, steps = load_quietly(folder, quantization=name)
    layer = loaded.model.model.layers[0]
    assert layer.mlp.up_proj.weight.dtype == (torch.int8 if name == "int8" else torch.uint8)
    assert loaded.model.lm_head.weight.dtype == torch.float32
    assert loaded.info.quantization == name
    assert steps[-1].stage == "quantise"
    expected = memory.expected_bytes(
        memory.empty_model(loaded.model.config), quantised(name), torch.float32
    )
    assert loaded.info.weights_bytes == pytest.approx(expected, rel=0.05)


@QUANTISED
@pytest.mark.parametrize("kind", sorted(FAMILIES))
def test_every_family_loads_quantised_and_takes_what_was_expected(
    tmp_path: Path, kind: str
) -> None:
    model = save_family(tmp_path, kind)
    for name in ("none", "nf4", "int8"):
        info = load_quietly(tmp_path, quantization=name)[0].info
        assert info.architecture == FAMILIES[kind].architecture
        assert info.parameters == sum(parameter.numel() for parameter in model.parameters())
        empty = memory.empty_model(model.config)
        expected = memory.expected_bytes(empty, quantised(name), torch.float32)
        assert info.weights_bytes == pytest.approx(expected, rel=0.01)


@QUANTISED
@pytest.mark.parametrize("name", ["nf4", "fp4", "int8"])
def test_quantised_weights_still_mean_the_same(folder: Path, name: str) -> None:
    ids = torch.arange(20)[None]
    exact = plain(folder)(ids).logits
    kind = load_quietly(folder, quantization=name)[0].model
    kind.set_attn_implementation("sdpa")
    error = (kind(ids).logits - exact).norm() / exact.norm()
    assert 0 < error < (0.03 if name == "int8" else 0.3)


@QUANTISED
@pytest.mark.parametrize("name", ["nf4", "fp4", "int8"])
def test_checkpoints_that_are_quantised_load_as_they_are(folder: Path, name: str) -> None:
    stored = folder.parent / "stored"
    small_checkpoints.save_quantised(folder, stored, name)
    loaded, steps = load_quietly(stored)
    assert loaded.info.quantization == name
    assert steps[-1].stage == "read"
    direct, _ = load_quietly(folder, quantization=name)
    ids = torch.arange(20)[None]
    for model in (loaded.model, direct.model):
        model.set_attn_implementation("sdpa")
    assert torch.equal(loaded.model(ids).logits, direct.model(ids).logits)
    assert load_quietly(stored, quantization=name)[0].info.quantization == name


@QUANTISED
@pytest.mark.parametrize(("kind", "double"), [("nf4", False), ("nf4", True), ("int8", False)])
@pytest.mark.parametrize("stored", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_checkpoints_that_are_quantised_compute_in_any_dtype(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    double: bool,
    stored: str,
    dtype: str,
) -> None:
    small_checkpoints.save(tmp_path / "m", tie_word_embeddings=double)
    small_checkpoints.save_quantised(
        tmp_path / "m", tmp_path / "stored", kind, getattr(torch, stored), double
    )
    read: list[int] = []

    def hold_in(model: torch.nn.Module, dtype: torch.dtype) -> None:
        read.append(memory.taken_bytes(model))
        own_hold_in(model, dtype)

    own_hold_in = quantization.hold_in
    monkeypatch.setattr(quantization, "hold_in", hold_in)
    loaded, _ = load_quietly(tmp_path / "stored", dtype=dtype, device="cpu")
    needed = quantization.stored_peak_bytes(
        checkpoint.inspect(tmp_path / "stored", "m").tensors, loaded.dtype
    )
    embedding = loaded.model.get_input_embeddings().weight.nbytes
    twice = 0 if stored == dtype else embedding
    # small weights have comparatively large tables of values beside them
    most = max(*read, loaded.info.weights_bytes) + twice
    assert 0.99 < needed / most < 1.25
    kept = [p for p in loaded.model.parameters() if type(p) is torch.nn.Parameter]
    assert {p.dtype for p in kept} == {getattr(torch, dtype)}
    assert loaded.info.dtype == dtype
    loaded.model.set_attn_implementation("sdpa")
    logits = loaded.model(torch.arange(20)[None]).logits.float()
    exact = plain(tmp_path / "m")(torch.arange(20)[None]).logits
    assert logits.dtype == torch.float32
    assert (logits - exact).norm() / exact.norm() < (0.05 if kind == "int8" else 0.3)


def test_the_room_of_a_quantised_checkpoint_counts_what_changes_its_dtype() -> None:
    def stored(dtype: str, numbers: int, size: int) -> checkpoint.Tensor:
        return checkpoint.Tensor(dtype, (numbers,), 0, numbers * size)

    tensors = {
        "a.weight": stored("BF16", 100, 2),  # packed, in floating-point numbers
        "a.weight.absmax": stored("F32", 10, 4),
        "a.weight.quant_map": stored("F32", 16, 4),
        "b.SCB": stored("F32", 8, 4),
        "norm": stored("F32", 30, 4),
        "table": stored("F64", 50, 8),
    }
    beside = 200 + 40 + 64 + 32
    assert quantization.stored_peak_bytes(tensors, torch.float16) == beside + 120 + 400 + 100
    assert quantization.stored_peak_bytes(tensors, torch.float32) == beside + 120 + 400 + 200
    assert quantization.stored_peak_bytes(tensors, torch.float64) == beside + 240 + 400 + 240


def test_only_plain_parameters_of_floating_point_change_their_dtype() -> None:
    class Packed(torch.nn.Parameter):
        pass

    module = torch.nn.Module()
    module.plain = torch.nn.Parameter(torch.zeros(2))
    module.packed = Packed(torch.zeros(2))
    module.whole = torch.nn.Parameter(torch.zeros(2, dtype=torch.int8), requires_grad=False)
    module.register_buffer("frequencies", torch.zeros(2))
    quantization.hold_in(module, torch.bfloat16)
    found = (module.plain, module.packed, module.whole, module.frequencies)
    expected = (torch.bfloat16, torch.float32, torch.int8, torch.float32)
    assert tuple(tensor.dtype for tensor in found) == expected


@QUANTISED
def test_a_setting_against_the_checkpoint_is_refused(folder: Path) -> None:
    small_checkpoints.save_quantised(folder, folder.parent / "stored", "nf4")
    for other in ("int8", "none", "fp4"):
        with pytest.raises(UnsupportedModel, match=f"quantised to nf4 .*{other}"):
            load_quietly(folder.parent / "stored", quantization=other)


def test_other_quantisations_are_refused_by_name(folder: Path) -> None:
    for method in ("mxfp4", "fp8", "hqq"):
        edit(folder / "config.json", quantization_config={"quant_method": method})
        with pytest.raises(UnsupportedModel, match=f"quantised by {method}"):
            load_quietly(folder)


def test_missing_tensors_are_an_error_and_no_random_numbers(folder: Path) -> None:
    tensors = load_file(folder / SINGLE)
    for name in ("model.norm.weight", "model.layers.1.mlp.up_proj.weight"):
        del tensors[name]
    save_file(tensors, folder / SINGLE, metadata={"format": "pt"})
    with pytest.raises(BrokenCheckpoint, match=r"2 tensors .* model\.layers\.1\.mlp\.up_proj"):
        load_quietly(folder)


def test_tensors_of_another_shape_are_an_error(folder: Path) -> None:
    edit(folder / "config.json", intermediate_size=192)
    with pytest.raises(BrokenCheckpoint, match=r"6 tensors .*down_proj.*\[64, 128\].*\[64, 192\]"):
        load_quietly(folder)


def test_a_single_tensor_is_one_tensor(folder: Path) -> None:
    edit(folder / "config.json", hidden_size=96)
    with pytest.raises(BrokenCheckpoint, match=r"of 1 tensor .*embed_tokens.*\[404, 64\]"):
        load_quietly(folder)


def test_a_torn_file_is_an_error(folder: Path) -> None:
    data = (folder / SINGLE).read_bytes()
    (folder / SINGLE).write_bytes(data[: len(data) // 2])
    with pytest.raises(BrokenCheckpoint, match="torn"):
        load_quietly(folder)


def test_an_architecture_outside_the_list_is_refused_by_name(folder: Path) -> None:
    for changes in (
        {"model_type": "bloom", "architectures": ["BloomForCausalLM"]},
        {"model_type": "nonsense", "architectures": ["NonsenseForCausalLM"]},
        {"model_type": ["llama"], "architectures": ["StrangeForCausalLM"]},
    ):
        edit(folder / "config.json", **changes)
        with pytest.raises(UnsupportedModel, match=rf"{changes['architectures'][0]}.*Llama"):
            load_quietly(folder)


@pytest.mark.parametrize(
    "value",
    [
        {"hidden_size": "many"},
        {"num_attention_heads": 0},
        {"num_attention_heads": 7},
        {"vocab_size": -4},
        {"hidden_act": "bogus"},
        {"dtype": "float99"},
        {"quantization_config": "4 bit"},
    ],
)
def test_a_configuration_that_contradicts_itself_is_an_error(
    folder: Path, value: dict[str, Any]
) -> None:
    edit(folder / "config.json", **value)
    with pytest.raises(BrokenCheckpoint, match=r"config\.json"):
        load_quietly(folder)


@pytest.fixture
def nothing_built(monkeypatch: pytest.MonkeyPatch) -> None:
    """No model is built, since one of a nonsensical size takes minutes."""
    monkeypatch.setattr(memory, "empty_model", lambda _: pytest.fail("a model was built"))


@pytest.mark.usefixtures("nothing_built")
@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        *(("llama", "max_position_embeddings", value) for value in (0, -5, 1)),
        *(("gpt2", "n_positions", value) for value in (0, -5, 1)),
        *(("llama", "num_hidden_layers", value) for value in (0, -1)),
        *(("gpt2", "n_layer", value) for value in (0, -1)),
        *(("falcon", "vocab_size", value) for value in (0, -4)),
        *(("gemma2", "sliding_window", value) for value in (0, -4)),
        ("mistral", "sliding_window", -1),
    ],
)
def test_a_number_that_no_model_can_have_is_an_error_at_once(
    tmp_path: Path, kind: str, name: str, value: int
) -> None:
    save_family(tmp_path, kind)
    edit(tmp_path / "config.json", **{name: value})
    with pytest.raises(BrokenCheckpoint, match=rf"config\.json has {name}={value}, "):
        load_quietly(tmp_path)


def test_a_window_that_nothing_reads_may_be_anything(folder: Path) -> None:
    edit(folder / "config.json", sliding_window=-1)
    load_quietly(folder)


@pytest.mark.usefixtures("nothing_built")
@pytest.mark.parametrize("kind", sorted(FAMILIES))
def test_layers_that_the_files_do_not_hold_are_an_error_at_once(tmp_path: Path, kind: str) -> None:
    save_family(tmp_path, kind)
    name = "n_layer" if kind == "gpt2" else "num_hidden_layers"
    edit(tmp_path / "config.json", **{name: 100_000, "layer_types": None})
    with pytest.raises(BrokenCheckpoint, match=r"config\.json has 100000 layers.*files hold 2\."):
        load_quietly(tmp_path)


@pytest.mark.usefixtures("nothing_built")
@pytest.mark.parametrize("kind", sorted(FAMILIES))
def test_embeddings_of_another_shape_are_an_error_at_once(tmp_path: Path, kind: str) -> None:
    save_family(tmp_path, kind)
    edit(tmp_path / "config.json", **{"n_embd" if kind == "gpt2" else "hidden_size": 2**20})
    with pytest.raises(BrokenCheckpoint, match=r"weight is \[\d+, 64\] in .*\[\d+, 1048576\] by"):
        load_quietly(tmp_path)


@pytest.mark.usefixtures("nothing_built")
def test_learned_positions_of_another_number_are_an_error_at_once(tmp_path: Path) -> None:
    save_family(tmp_path, "gpt2")
    edit(tmp_path / "config.json", n_positions=10**7)
    with pytest.raises(BrokenCheckpoint, match=r"wpe\.weight is \[256, 64\] .*\[10000000, 64\] by"):
        load_quietly(tmp_path)


def test_an_empty_quantisation_is_none(folder: Path) -> None:
    edit(folder / "config.json", quantization_config={})
    loaded, _ = load_quietly(folder)
    assert loaded.info.quantization == "none"


@QUANTISED
def test_weights_beside_an_empty_quantisation_can_be_quantised(folder: Path) -> None:
    edit(folder / "config.json", quantization_config={})
    assert load_quietly(folder, quantization="nf4")[0].info.quantization == "nf4"


def test_weights_that_are_not_quantised_as_the_configuration_says_are_an_error(
    folder: Path,
) -> None:
    for stored in ({"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}, {"load_in_8bit": True}):
        edit(folder / "config.json", quantization_config={"quant_method": "bitsandbytes"} | stored)
        with pytest.raises(BrokenCheckpoint, match="files hold none"):
            load_quietly(folder)


def test_integers_that_nothing_explains_are_no_weights(folder: Path) -> None:
    tensors = load_file(folder / SINGLE)
    name = "model.layers.0.mlp.up_proj.weight"
    save_file(tensors | {name: tensors[name].to(torch.int8)}, folder / SINGLE, {"format": "pt"})
    with pytest.raises(BrokenCheckpoint, match=f"{name} is stored as I8, and nothing"):
        load_quietly(folder)


@pytest.mark.parametrize("name", ["nf4", "fp4"])
def test_shapes_that_4_bits_spoil_on_the_cpu_are_refused(tmp_path: Path, name: str) -> None:
    small_checkpoints.save(tmp_path, intermediate_size=96)
    with pytest.raises(UnsupportedModel, match=r"down_proj has 96 inputs.*multiple of 64"):
        load_quietly(tmp_path, quantization=name)
    load_quietly(tmp_path, quantization="none")


def test_code_of_the_repository_is_never_run(folder: Path) -> None:
    canary = plant_code(folder)
    edit(folder / "config.json", auto_map=auto_map())
    edit(folder / "tokenizer_config.json", auto_map={"AutoTokenizer": ["code.Tokenizer", None]})
    loaded, _ = load_quietly(folder)  # the family is transformers' own, so its own code is used
    assert loaded.info.architecture == "LlamaForCausalLM"
    edit(folder / "config.json", model_type="nonsense", architectures=["NonsenseForCausalLM"])
    with pytest.raises(UnsafeCheckpoint, match="auto_map"):
        load_quietly(folder)
    assert not canary.exists()


def test_a_tokenizer_that_needs_code_is_refused(folder: Path) -> None:
    canary = plant_code(folder)
    edit(
        folder / "tokenizer_config.json",
        tokenizer_class="Unheard",
        auto_map={"AutoTokenizer": ["code.Tokenizer", None]},
    )
    (folder / "tokenizer.json").unlink()
    with pytest.raises((UnsafeCheckpoint, UnsupportedModel)):
        load_quietly(folder)
    assert not canary.exists()


def test_a_generation_function_of_the_repository_is_never_run(folder: Path) -> None:
    canary = plant_code(folder)
    (folder / "custom_generate").mkdir()
    (folder / "code.py").rename(folder / "custom_generate" / "generate.py")
    load_quietly(folder)
    assert not canary.exists()


def test_weights_that_the_configuration_points_to_elsewhere_are_not_taken(folder: Path) -> None:
    edit(folder / "config.json", transformers_weights="adapter_model.bin")
    loaded, _ = load_quietly(folder)
    assert loaded.info.parameters > 0


def test_without_a_tokenizer_the_model_is_refused(tmp_path: Path) -> None:
    small_checkpoints.save(tmp_path / "m", tokenizer=False)
    with pytest.raises(UnsupportedModel, match=r"tokenizer\.json"):
        load_quietly(tmp_path / "m")


def test_a_broken_tokenizer_is_an_error(folder: Path) -> None:
    (folder / "tokenizer.json").write_text('{"version": "1.0"}')
    with pytest.raises(BrokenCheckpoint, match="tokenizer"):
        load_quietly(folder)


def test_ends_come_from_every_place_that_names_them(folder: Path) -> None:
    assert load_quietly(folder)[0].tokenizer.eos_token_ids == {
        1,
        2,
    }  # </s>, <|end|> of the template
    edit(folder / "generation_config.json", eos_token_id=[1, 7])
    assert load_quietly(folder)[0].tokenizer.eos_token_ids == {1, 2, 7}
    (folder / "generation_config.json").unlink()
    edit(folder / "config.json", eos_token_id=9)
    assert load_quietly(folder)[0].tokenizer.eos_token_ids == {1, 2, 9}


def test_tokens_without_an_embedding_are_refused(tmp_path: Path) -> None:
    small_checkpoints.save(tmp_path / "m", vocab_size=400)  # <tool> is token 400
    tokenizer = load_quietly(tmp_path / "m")[0].tokenizer
    assert tokenizer.vocab_size == 400
    with pytest.raises(InvalidRequest, match="<tool>"):
        tokenizer.encode("a<tool>b")


def test_a_model_with_few_embeddings_reads_what_it_can(tmp_path: Path) -> None:
    small_checkpoints.save(tmp_path / "m", vocab_size=60)  # the first ids are those of letters
    tokenizer = load_quietly(tmp_path / "m")[0].tokenizer
    assert tokenizer.encode("!", add_special_tokens=False)
    with pytest.raises(InvalidRequest, match="cannot read"):
        tokenizer.encode("hello, this is a text")


def test_a_configuration_without_a_model_type_is_an_error(folder: Path) -> None:
    edit(folder / "config.json", model_type=None)
    with pytest.raises(BrokenCheckpoint, match="has no model_type"):
        load_quietly(folder)


def test_more_than_the_memory_is_refused_with_both_numbers(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "free_bytes", lambda _: 100_000)
    with pytest.raises(NotEnoughMemory, match="nf4") as caught:
        load_quietly(folder)
    assert caught.value.data["free"] == 100_000
    assert caught.value.data["needed"] == 4 * caught_parameters(folder)


def caught_parameters(folder: Path) -> int:
    return sum(parameter.numel() for parameter in plain(folder).parameters())


def test_memory_that_runs_out_while_reading_is_told_the_same_way(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def out_of_memory(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", out_of_memory)
    before = psutil.Process().children()  # of other tests, such as multiprocessing's tracker
    with pytest.raises(NotEnoughMemory, match="GiB"):
        load_quietly(folder)
    assert psutil.Process().children() == before


@pytest.mark.parametrize(
    ("changes", "longest"),
    [
        ({}, 256),
        ({"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e4}}, 256),
        (
            {
                "rope_parameters": {
                    "rope_type": "yarn",
                    "factor": 4.0,
                    "original_max_position_embeddings": 256,
                    "rope_theta": 1e4,
                }
            },
            1024,
        ),
    ],
)
def test_the_longest_context_is_that_of_the_positions(
    changes: dict[str, Any], longest: int
) -> None:
    assert longest_context(small_checkpoints.config(**changes)) == longest


def test_a_context_beyond_the_model_is_refused_with_both_numbers(folder: Path) -> None:
    assert load_quietly(folder, context_length=100)[0].context_length == 100
    assert load_quietly(folder, context_length=256)[0].info.context_length == 256
    with pytest.raises(InvalidRequest, match=r"257 .* 256 positions. Give 256 or less"):
        load_quietly(folder, context_length=257)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_a_device_that_is_not_there_is_refused(device: str) -> None:
    assert choose_device("auto") == torch.device("cpu")
    with pytest.raises(StartFailed, match="doctor"):
        choose_device(device)


def test_loading_warns_of_nothing(folder: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_quietly(folder)


def test_a_failed_load_leaves_no_process_behind(folder: Path) -> None:
    tensors = load_file(folder / SINGLE)
    del tensors["model.norm.weight"]
    save_file(tensors, folder / SINGLE, metadata={"format": "pt"})
    with pytest.raises(BrokenCheckpoint) as caught:
        load_quietly(folder)
    assert psutil.Process().children() == []
    assert caught.tb  # which holds all that the load held


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_gets_nf4_in_bfloat16_unless_told_otherwise(folder: Path) -> None:
    loaded, _ = load_quietly(folder, device="auto")
    assert loaded.device.type == "cuda"
    assert loaded.info.quantization == "nf4"
    assert loaded.info.dtype == "bfloat16"
    assert loaded.model.model.embed_tokens.weight.device.type == "cuda"


def quantised(name: str) -> Any:
    from llmkernel.worker.quantization import Quantized

    return Quantized(name)


def save_family(folder: Path, kind: str) -> Any:
    """Save a small model of a family with a tokenizer; returns it."""
    model = AutoModelForCausalLM.from_config(small_checkpoints.families()[kind])
    model.save_pretrained(folder)
    small_tokenizers.fast().save_pretrained(folder)
    return model


def plain(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


def plant_code(folder: Path) -> Path:
    """A module that touches a file when it is imported; returns that file."""
    canary = folder.parent / "canary"
    names = ("Config", "Model", "Tokenizer")
    (folder / "code.py").write_text(
        f"open({str(canary)!r}, 'w').close()\n" + "".join(f"class {n}: pass\n" for n in names)
    )
    return canary


def auto_map() -> dict[str, str]:
    return {"AutoConfig": "code.Config", "AutoModelForCausalLM": "code.Model"}


@pytest.mark.usefixtures("nothing_built")
@pytest.mark.parametrize("kind", sorted(FAMILIES))
def test_layers_beyond_those_of_the_configuration_are_an_error(tmp_path: Path, kind: str) -> None:
    save_family(tmp_path, kind)
    name = "n_layer" if kind == "gpt2" else "num_hidden_layers"
    edit(tmp_path / "config.json", **{name: 1, "layer_types": None})
    with pytest.raises(BrokenCheckpoint, match="another model"):
        load_quietly(tmp_path)


def test_attention_is_tried_beside_the_reading_and_waited_for(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Any] = []

    def begin(config: Any, **sizes: Any) -> Any:
        told.append((config.model_type, sizes))
        return lambda: told.append("waited for")

    monkeypatch.setattr("llmkernel.worker.models.rehearsal.begin", begin)
    loaded, _ = load_quietly(folder, dtype="float32")
    sizes = {"block_size": 16, "dtype": torch.float32, "device": loaded.device}
    assert told == [(loaded.model.config.model_type, sizes), "waited for"]


@pytest.mark.parametrize(("kernels", "expected"), [("1", [True]), ("0", [])])
def test_triton_is_known_early_where_its_kernels_are_used(
    kernels: str, expected: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    known: list[bool] = []
    monkeypatch.setenv("LLMKERNEL_KERNELS", kernels)
    monkeypatch.setattr("llmkernel.worker.imports.know_triton", lambda: known.append(True))
    opened = SimpleNamespace(device=torch.device("cuda"))
    monkeypatch.setattr(loader, "_open", lambda config, report: opened)
    monkeypatch.setattr("llmkernel.worker.construction.build", lambda *_: "built")
    built: Any = loader.load(WorkerConfig.build(model="m"), lambda _: None)
    assert built == "built"
    assert known == expected
