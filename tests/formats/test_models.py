"""Whole checkpoints in GPTQ's and AWQ's formats: they answer as the same weights in floats do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import packers
import pytest
import small_tokenizers
import torch
from safetensors.torch import load_file
from torch import nn

import llmkernel
from llmkernel.errors import UnsupportedModel
from llmkernel.worker.kernels import tiles
from llmkernel.worker.models import ATTENTION, FAMILIES
from llmkernel.worker.models.packed import PackedLinear
from tests.loader import small_checkpoints
from tests.loader.small_checkpoints import load_quietly
from tests.model.driving import Driver, make_runner

pytestmark = pytest.mark.timeout(120)

WEIGHTS = "model.safetensors"
FUSED = {"gpt_oss", "mixtral"}
"""Families whose experts are no linear layers."""
KINDS: dict[str, dict[str, Any]] = {
    "gptq": packers.GPTQ,
    "gptq asymmetric": packers.GPTQ | {"sym": False, "group_size": 64},
    "gptq sorted": packers.GPTQ | {"desc_act": True},
    "gptq sorted, v2": packers.GPTQ
    | {"desc_act": True, "sym": False, "checkpoint_format": "gptq_v2"},
    "gptq whole rows": packers.GPTQ | {"group_size": -1},
    "awq": packers.AWQ,
    "awq, groups of 64": packers.AWQ | {"group_size": 64},
    "awq without zero points": packers.AWQ | {"zero_point": False},
}


def floats(folder: Path, model: Any) -> Any:
    """The same weights through the same loader, stored as float32."""
    model.save_pretrained(folder / "floats")
    small_tokenizers.fast().save_pretrained(folder / "floats")
    return load_quietly(folder / "floats")[0].model


def answer(model: Any, count: int = 24) -> list[Any]:
    """What the runner makes of two prompts side by side, with log-probabilities."""
    driver = Driver(make_runner(loaded={"model": model, "context_length": 256}))
    for prompt in ([5, 17, 42, 9], list(range(20, 60))):
        driver.add(prompt, max_tokens=count, logprobs=1)
    driver.run()
    return [sampled for _, result in driver.results for sampled in result.sampled]


def same(one: list[Any], other: list[Any]) -> bool:
    """Whether answers have the same tokens, and nearly the same log-probabilities."""
    near = [abs(a.logprob - b.logprob) < 1e-3 for a, b in zip(one, other, strict=True)]
    return all(near) and [a.token_id for a in one] == [b.token_id for b in other]


def shapes_of(model: nn.Module) -> dict[str, type]:
    return {name: type(module) for name, module in model.named_modules()}


@pytest.mark.parametrize("kind", KINDS)
def test_a_quantised_model_answers_as_its_weights_do(tmp_path: Path, kind: str) -> None:
    exact = packers.save(tmp_path, small_checkpoints.config(), KINDS[kind])
    loaded, _ = load_quietly(tmp_path / "quantised")
    assert isinstance(loaded.model.model.layers[1].mlp.down_proj, PackedLinear)
    assert type(loaded.model) is type(exact)
    assert loaded.model.config._attn_implementation == ATTENTION
    expected = answer(floats(tmp_path, exact))
    assert len({sampled.token_id for sampled in expected}) > 3, "no model that says one thing only"
    assert same(answer(loaded.model), expected)


CASES = [(family, packers.GPTQ) for family in sorted(FAMILIES.keys() - FUSED)]
CASES += [(family, packers.AWQ) for family in ("gpt2", "qwen2")]


@pytest.mark.parametrize(("family", "stored"), CASES)
def test_families_with_their_own_layers_and_biases(
    tmp_path: Path, family: str, stored: dict[str, Any]
) -> None:
    config = small_checkpoints.families()[family]
    exact = packers.save(tmp_path, config, stored)
    loaded, _ = load_quietly(tmp_path / "quantised")
    kinds = shapes_of(loaded.model)
    assert list(kinds.values()).count(PackedLinear) >= 8
    assert same(answer(loaded.model), answer(floats(tmp_path, exact)))


def test_what_was_loaded_is_described(tmp_path: Path) -> None:
    stored = packers.GPTQ | {"group_size": 64}
    exact = packers.save(tmp_path, small_checkpoints.config(), stored)
    loaded, steps = load_quietly(tmp_path / "quantised")
    assert loaded.info.quantization == "gptq-4bit-64g"
    assert loaded.info.architecture == "LlamaForCausalLM"
    assert loaded.info.parameters == sum(parameter.numel() for parameter in exact.parameters())
    tensors = load_file(tmp_path / "quantised" / WEIGHTS)
    total = sum(tensor.nbytes for tensor in tensors.values())
    read = [step for step in steps if step.stage == "read"]
    assert all(step.unit == "bytes" and step.total == total for step in read)
    assert [step.done for step in read] == sorted(step.done for step in read)
    assert read[0].done == 0
    assert read[-1].done == total
    assert len(read) > 14


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_taken_was_foretold(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from llmkernel.worker import weights

    packers.save(tmp_path, small_checkpoints.config(), KINDS[kind])
    plans: list[weights.Plan] = []
    check = weights.Plan.check_room
    monkeypatch.setattr(weights.Plan, "check_room", lambda plan: (plans.append(plan), check(plan)))
    loaded, _ = load_quietly(tmp_path / "quantised")
    largest = max(layer.rows * layer.columns for layer in plans[0].layers.layers)
    kept = plans[0].needed - 5 * largest
    assert loaded.info.weights_bytes <= kept * 1.05
    if "zero" not in kind:
        assert loaded.info.weights_bytes >= kept * 0.95


def test_shards_load_as_one(tmp_path: Path) -> None:
    exact = packers.save(tmp_path, small_checkpoints.config(), packers.AWQ)
    small_checkpoints.shard(tmp_path / "quantised")
    loaded, _ = load_quietly(tmp_path / "quantised")
    assert same(answer(loaded.model), answer(floats(tmp_path, exact)))


def test_layers_that_were_left_out_stay_as_they_are(tmp_path: Path) -> None:
    kept = ("lm_head", "o_proj")
    config = small_checkpoints.config()
    for stored in (
        packers.AWQ | {"modules_to_not_convert": ["o_proj"]},
        packers.GPTQ | {"dynamic": {r"-:.*o_proj": {}}},
    ):
        exact = packers.save(tmp_path, config, stored, kept=kept)
        loaded, _ = load_quietly(tmp_path / "quantised")
        assert type(loaded.model.model.layers[0].self_attn.o_proj) is nn.Linear
        assert same(answer(loaded.model), answer(floats(tmp_path, exact)))


def test_tied_embeddings_stay_tied(tmp_path: Path) -> None:
    config = small_checkpoints.config(tie_word_embeddings=True)
    exact = packers.save(tmp_path, config, packers.GPTQ)
    loaded, _ = load_quietly(tmp_path / "quantised")
    assert loaded.model.lm_head.weight is loaded.model.model.embed_tokens.weight
    assert same(answer(loaded.model), answer(floats(tmp_path, exact)))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_scales_keep_their_digits_in_any_dtype(tmp_path: Path, dtype: str) -> None:
    exact = packers.save(tmp_path, small_checkpoints.config(), packers.GPTQ)
    loaded, _ = load_quietly(tmp_path / "quantised", dtype=dtype)
    layer = loaded.model.model.layers[0].mlp.up_proj
    assert layer.scales.dtype == torch.float32

    assert torch.equal(tiles.expand(layer.packed), exact.model.layers[0].mlp.up_proj.weight)
    plain = {p.dtype for p in loaded.model.parameters()}
    assert plain == {getattr(torch, dtype)}


def test_a_setting_against_the_checkpoint_is_refused(tmp_path: Path) -> None:
    packers.save(tmp_path, small_checkpoints.config(), packers.AWQ)
    for other in ("int8", "none", "nf4"):
        with pytest.raises(UnsupportedModel, match=f"quantised to awq .*{other}"):
            load_quietly(tmp_path / "quantised", quantization=other)


@pytest.mark.parametrize("kind", ["gptq sorted", "awq"])
def test_a_worker_serves_it(tmp_path: Path, kind: str, start_worker: Any) -> None:
    exact = packers.save(tmp_path, small_checkpoints.config(), KINDS[kind])
    start_worker(model=str(tmp_path / "quantised"), name="q", device="cpu")
    llm = llmkernel.connect("q")
    answer = llm.generate("The quick brown", max_tokens=12, temperature=0, ignore_eos=True)
    loaded, _ = load_quietly(tmp_path / "quantised")
    ids = torch.tensor([loaded.tokenizer.encode("The quick brown")])
    exact.set_attn_implementation("sdpa")
    for _ in range(12):
        ids = torch.cat((ids, exact(ids).logits[:, -1:].argmax(-1)), 1)
    assert list(answer.token_ids) == ids[0, -12:].tolist()
    assert llm.status().model.quantization.startswith(kind[:4].strip())


def test_loading_has_nothing_to_say(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    packers.save(tmp_path, small_checkpoints.config(), packers.GPTQ)
    caplog.clear()
    load_quietly(tmp_path / "quantised")
    assert [record for record in caplog.records if record.levelname != "INFO"] == []
