"""What cannot be read as it should is refused, before a weight is read where that can be known."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import packers
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from llmkernel.errors import BrokenCheckpoint, NotEnoughMemory, UnsupportedModel
from llmkernel.worker import memory, weights
from tests.loader import small_checkpoints
from tests.loader.small_checkpoints import edit, load_quietly

pytestmark = pytest.mark.timeout(120)

WEIGHTS = "model.safetensors"
LAYER = "model.layers.0.self_attn.q_proj"


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A checkpoint of each format."""
    made = {}
    for name, stored in (("gptq", packers.GPTQ), ("awq", packers.AWQ)):
        folder = tmp_path_factory.mktemp(name)
        packers.save(folder, small_checkpoints.config(num_hidden_layers=1), stored)
        made[name] = folder / "quantised"
    return made


@pytest.fixture
def gptq(originals: dict[str, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(originals["gptq"], tmp_path / "gptq"))


@pytest.fixture
def awq(originals: dict[str, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(originals["awq"], tmp_path / "awq"))


@pytest.fixture
def nothing_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails a test whose load gets as far as the weights."""

    def read(*_: Any) -> None:
        pytest.fail("weights were read")

    monkeypatch.setattr(weights, "read", read)


def set_format(folder: Path, base: dict[str, Any], **changes: Any) -> None:
    edit(folder / "config.json", quantization_config=base | changes)


def change(folder: Path, **changes: Any) -> None:
    """Replace tensors of the first query layer by part; None removes one."""
    tensors: dict[str, Any] = load_file(folder / WEIGHTS)
    for part, tensor in changes.items():
        tensors[f"{LAYER}.{part}"] = tensor
    kept = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    save_file(kept, folder / WEIGHTS, {"format": "pt"})


def part(folder: Path, name: str) -> Tensor:
    return load_file(folder / WEIGHTS)[f"{LAYER}.{name}"]


@pytest.mark.usefixtures("nothing_read")
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bits": 2}, "gptq to 2 bits"),
        ({"bits": 3}, "gptq to 3 bits"),
        ({"bits": 8}, "gptq to 8 bits"),
        ({"group_size": 16}, "groups of 16 weights"),
        ({"checkpoint_format": "marlin"}, "packed for marlin"),
        ({"checkpoint_format": "bitblas"}, "packed for bitblas"),
        ({"checkpoint_format": None, "format": "marlin"}, "packed for marlin"),
        ({"dynamic": {r".*\.1\..*": {"bits": 8}}}, "settings of their own"),
        ({"dynamic": {r"+:.*up_proj": {"group_size": 64}}}, "settings of their own"),
        ({"adapter": {"name": "lora"}}, "GPTQ adapter"),
        ({"rotation": "hadamard"}, "GPTQ rotation"),
    ],
)
def test_settings_of_gptq_that_are_not_supported(
    gptq: Path, changes: dict[str, Any], message: str
) -> None:
    set_format(gptq, packers.GPTQ, **changes)
    with pytest.raises(UnsupportedModel, match=message):
        load_quietly(gptq)


@pytest.mark.usefixtures("nothing_read")
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bits": 3}, "awq to 3 bits"),
        ({"group_size": 16}, "groups of 16 weights"),
        ({"version": "gemv"}, "packed for gemv,.*version gemm"),
        ({"version": "GEMV"}, "packed for gemv,.*version gemm"),
        ({"version": "gemv_fast"}, "packed for gemv_fast"),
        ({"version": "marlin"}, "packed for marlin"),
        ({"version": None, "format": "gemv"}, "packed for gemv"),
        ({"backend": "llm-awq"}, "packed for llm-awq"),
    ],
)
def test_settings_of_awq_that_are_not_supported(
    awq: Path, changes: dict[str, Any], message: str
) -> None:
    set_format(awq, packers.AWQ, **changes)
    with pytest.raises(UnsupportedModel, match=message):
        load_quietly(awq)


@pytest.mark.usefixtures("nothing_read")
@pytest.mark.parametrize(
    ("base", "changes"),
    [
        (packers.GPTQ, {"bits": "4"}),
        (packers.GPTQ, {"bits": None}),
        (packers.GPTQ, {"group_size": 0}),
        (packers.GPTQ, {"group_size": -2}),
        (packers.GPTQ, {"group_size": True}),
        (packers.GPTQ, {"sym": "yes"}),
        (packers.GPTQ, {"desc_act": 1}),
        (packers.GPTQ, {"checkpoint_format": 2}),
        (packers.GPTQ, {"dynamic": ["a"]}),
        (packers.GPTQ, {"meta": 5}),
        (packers.AWQ, {"zero_point": None}),
        (packers.AWQ, {"modules_to_not_convert": "lm_head"}),
        (packers.AWQ, {"modules_to_not_convert": [1]}),
    ],
)
def test_settings_that_mean_nothing(
    gptq: Path, base: dict[str, Any], changes: dict[str, Any]
) -> None:
    set_format(gptq, base, **changes)
    with pytest.raises(BrokenCheckpoint, match=f"quantization_config .*{next(iter(changes))}"):
        load_quietly(gptq)


@pytest.mark.usefixtures("nothing_read")
@pytest.mark.parametrize("name", ["qweight", "qzeros", "scales"])
def test_tensors_that_are_missing(gptq: Path, awq: Path, name: str) -> None:
    for folder in (gptq, awq):
        change(folder, **{name: None})
        with pytest.raises((BrokenCheckpoint, UnsupportedModel), match=LAYER):
            load_quietly(folder)


@pytest.mark.usefixtures("nothing_read")
def test_sorted_columns_need_an_index(gptq: Path) -> None:
    set_format(gptq, packers.GPTQ, desc_act=True)
    change(gptq, g_idx=None)
    with pytest.raises(BrokenCheckpoint, match=f"{LAYER}.g_idx is not in the files"):
        load_quietly(gptq)


@pytest.mark.usefixtures("nothing_read")
@pytest.mark.parametrize("name", ["qweight", "qzeros", "scales", "g_idx"])
def test_tensors_of_another_shape(gptq: Path, name: str) -> None:
    change(gptq, **{name: part(gptq, name)[:-1].clone()})
    with pytest.raises(BrokenCheckpoint, match=rf"{LAYER}.{name} is \[.*\] in the files"):
        load_quietly(gptq)


@pytest.mark.usefixtures("nothing_read")
def test_the_tensors_of_the_other_format_do_not_pass(gptq: Path, awq: Path) -> None:
    set_format(gptq, packers.AWQ)
    set_format(awq, packers.GPTQ)
    for folder in (gptq, awq):
        with pytest.raises(BrokenCheckpoint, match=r"qweight is \[.*by config.json"):
            load_quietly(folder)


@pytest.mark.usefixtures("nothing_read")
def test_another_group_size_than_the_files_have(gptq: Path) -> None:
    set_format(gptq, packers.GPTQ, group_size=64)
    with pytest.raises(BrokenCheckpoint, match=r"qzeros is \["):
        load_quietly(gptq)


@pytest.mark.usefixtures("nothing_read")
@pytest.mark.parametrize(("name", "dtype"), [("qweight", torch.int64), ("scales", torch.float64)])
def test_tensors_of_another_dtype(gptq: Path, name: str, dtype: torch.dtype) -> None:
    change(gptq, **{name: part(gptq, name).to(dtype)})
    with pytest.raises(BrokenCheckpoint, match=f"{LAYER}.{name} is stored as .64, and should be"):
        load_quietly(gptq)


@pytest.mark.usefixtures("nothing_read")
def test_a_layer_that_is_there_twice(gptq: Path) -> None:
    change(gptq, weight=torch.zeros(64, 64))
    with pytest.raises(BrokenCheckpoint, match=f"{LAYER} is in the files both"):
        load_quietly(gptq)


@pytest.mark.usefixtures("nothing_read")
@pytest.mark.parametrize("name", ["q_proj", "self_attn", "model.layers.0"])
def test_a_layer_that_should_not_be_quantised_and_is(awq: Path, name: str) -> None:
    set_format(awq, packers.AWQ, modules_to_not_convert=[name])
    with pytest.raises(BrokenCheckpoint, match="is not quantised, and in the files it is"):
        load_quietly(awq)


@pytest.mark.usefixtures("nothing_read")
def test_files_without_a_quantised_layer(tmp_path: Path) -> None:
    small_checkpoints.save(tmp_path)
    for stored in (packers.GPTQ, packers.AWQ):
        set_format(tmp_path, stored)
        with pytest.raises(BrokenCheckpoint, match="files hold none that are"):
            load_quietly(tmp_path)


@pytest.mark.usefixtures("nothing_read")
def test_quantised_layers_that_the_configuration_does_not_explain(gptq: Path) -> None:
    edit(gptq / "config.json", quantization_config=None)
    with pytest.raises(BrokenCheckpoint, match="no quantization_config that says how"):
        load_quietly(gptq)


@pytest.mark.usefixtures("nothing_read")
def test_a_quantised_head(tmp_path: Path) -> None:
    config = small_checkpoints.config(vocab_size=416)
    packers.save(tmp_path, config, packers.GPTQ | {"lm_head": True}, kept=("nothing",))
    with pytest.raises(UnsupportedModel, match="lm_head, the output head"):
        load_quietly(tmp_path / "quantised")


@pytest.mark.usefixtures("nothing_read")
def test_experts(tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_config(small_checkpoints.families()["mixtral"])
    model.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / WEIGHTS)
    expert = next(name for name in tensors if ".experts.0." in name).removesuffix(".weight")
    layer = packers.gptq(packers.quantise(torch.randn(128, 64), 32))
    tensors |= {f"{expert}.{name}": tensor for name, tensor in layer.items()}
    del tensors[f"{expert}.weight"]
    save_file(tensors, tmp_path / WEIGHTS, {"format": "pt"})
    set_format(tmp_path, packers.GPTQ)
    with pytest.raises(UnsupportedModel, match=r"experts\.0\..* in no linear layer"):
        load_quietly(tmp_path)


@pytest.mark.usefixtures("nothing_read")
def test_activations_that_awq_scales(awq: Path) -> None:
    tensors = load_file(awq / WEIGHTS)
    name = "model.layers.0.mlp.act_fn.scales"
    save_file(tensors | {name: torch.ones(128)}, awq / WEIGHTS, {"format": "pt"})
    with pytest.raises(UnsupportedModel, match=f"{name} .* scaled activations"):
        load_quietly(awq)


@pytest.mark.usefixtures("nothing_read")
@pytest.mark.parametrize(
    ("sizes", "message"),
    [({"intermediate_size": 96}, "96 inputs"), ({"intermediate_size": 72}, "72 outputs")],
)
def test_sizes_that_are_no_whole_tiles(tmp_path: Path, sizes: dict[str, int], message: str) -> None:
    kept = ("lm_head", "up_proj", "gate_proj") if "inputs" in message else ("lm_head", "down_proj")
    config = small_checkpoints.config(**sizes)
    packers.save(tmp_path, config, packers.AWQ | {"group_size": 32}, kept=kept)
    with pytest.raises(UnsupportedModel, match=f"{message}.*multiples of 64 and 16"):
        load_quietly(tmp_path / "quantised")


@pytest.mark.usefixtures("nothing_read")
def test_too_little_memory(gptq: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free_bytes", lambda _: 100_000)
    with pytest.raises(NotEnoughMemory) as caught:
        load_quietly(gptq)
    assert caught.value.data["free"] == 100_000
    assert caught.value.data["needed"] > 100_000


def test_numbers_that_contradict_the_format_name_their_layer(gptq: Path) -> None:
    change(gptq, g_idx=torch.full((64,), 9, dtype=torch.int32))
    with pytest.raises(BrokenCheckpoint, match=f"{LAYER}: g_idx names group 9, and there are 2"):
        load_quietly(gptq)


def test_a_bias_of_zeros_that_the_model_does_not_have_is_passed_over(gptq: Path) -> None:
    change(gptq, bias=torch.zeros(64, dtype=torch.float16))
    assert load_quietly(gptq)[0].model.model.layers[0].self_attn.q_proj.bias is None
    change(gptq, bias=torch.ones(64, dtype=torch.float16))
    with pytest.raises(BrokenCheckpoint, match=f"{LAYER} has a bias in the files and none"):
        load_quietly(gptq)


def test_a_bias_that_is_missing(tmp_path: Path) -> None:
    packers.save(tmp_path, small_checkpoints.families()["qwen2"], packers.GPTQ)
    change(tmp_path / "quantised", bias=None)
    with pytest.raises(BrokenCheckpoint, match=f"{LAYER}.bias is not in the files"):
        load_quietly(tmp_path / "quantised")


def test_a_layer_that_is_missing_altogether(gptq: Path) -> None:
    change(gptq, qweight=None, qzeros=None, scales=None, g_idx=None)
    with pytest.raises(BrokenCheckpoint, match=rf"1 tensor of .*{LAYER}\.weight"):
        load_quietly(gptq)


def test_a_failed_load_of_a_layer_leaves_no_process_behind(gptq: Path) -> None:
    import psutil

    change(gptq, g_idx=torch.full((64,), 9, dtype=torch.int32))
    before = psutil.Process().children()  # of other tests, such as multiprocessing's tracker
    with pytest.raises(BrokenCheckpoint):
        load_quietly(gptq)
    assert psutil.Process().children() == before
