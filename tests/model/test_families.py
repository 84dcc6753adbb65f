from __future__ import annotations

import pytest
import torch
from transformers import AutoConfig, BloomConfig, FalconConfig, GPT2Config, LlamaConfig

from benchmarks import tiny_models
from llmkernel.errors import UnsupportedModel
from llmkernel.worker import models
from llmkernel.worker.runner import kv_bytes_per_block
from tests.model.driving import BLOCK, Driver, LoadedForTest, make_prompt, make_runner


def rope_module(model):
    return next(module for module in model.modules() if hasattr(module, "rope_type"))


def state_for(model, context_length):
    return models.PagedState(
        model.config,
        num_blocks=4,
        block_size=BLOCK,
        context_length=context_length,
        dtype=torch.float32,
        device=torch.device("cpu"),
    )


def llama_with_rope(**rope):
    config = LlamaConfig(
        vocab_size=50, hidden_size=32, intermediate_size=32, num_hidden_layers=1,
        num_attention_heads=2, max_position_embeddings=64,
        rope_parameters={"rope_theta": 10000.0, **rope},
    )  # fmt: skip
    from transformers import LlamaForCausalLM

    return LlamaForCausalLM(config)


@pytest.mark.parametrize("name", tiny_models.VARIANTS)
def test_every_family_of_the_table_is_recognised(name):
    assert models.check_supported(tiny_models.config_of(name)) in models.FAMILIES.values()


def test_every_family_of_the_table_has_a_tiny_model():
    tried = {model_type for model_type, _ in tiny_models.VARIANTS.values()}
    assert tried == set(models.FAMILIES)


@pytest.mark.parametrize(
    ("config", "named"),
    [
        (BloomConfig(architectures=["BloomForCausalLM"]), "BloomForCausalLM"),
        (AutoConfig.for_model("mamba"), "mamba"),
        (
            LlamaConfig(architectures=["LlamaForSequenceClassification"]),
            "LlamaForSequenceClassification",
        ),
        (FalconConfig(alibi=True), "ALiBi"),
        (GPT2Config(add_cross_attention=True), "cross-attention"),
        (
            AutoConfig.for_model("gemma3", architectures=["Gemma3ForConditionalGeneration"]),
            "multimodal",
        ),
        (AutoConfig.for_model("gemma3_text", use_bidirectional_attention=True), "bidirectional"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_other_models_are_refused_by_name_with_what_is_supported(config, named):
    with pytest.raises(UnsupportedModel) as refusal:
        models.check_supported(config)
    assert named in str(refusal.value)
    assert "Llama (LlamaForCausalLM)" in str(refusal.value)
    assert "StarCoder2" in str(refusal.value)


def test_an_unknown_rotary_embedding_is_refused():
    config = LlamaConfig()
    config.rope_parameters = {"rope_type": "spiral", "rope_theta": 1.0}
    with pytest.raises(UnsupportedModel, match="spiral"):
        models.check_supported(config)


def test_dynamic_frequencies_are_refused_beyond_the_length_they_start_at():
    model = llama_with_rope(rope_type="dynamic", factor=4.0)
    models.make_paged(model, state_for(model, 64))
    with pytest.raises(UnsupportedModel, match="context_length"):
        models.make_paged(model, state_for(model, 65))


def test_dynamic_frequencies_within_their_length_do_not_look_at_the_positions():
    model = llama_with_rope(rope_type="dynamic", factor=4.0)
    before = rope_module(model).inv_freq.clone()
    models.make_paged(model, state_for(model, 64))
    rope_module(model)(torch.zeros(1, 1, 32), torch.tensor([[500]]))
    assert torch.equal(rope_module(model).inv_freq, before)


def test_longrope_takes_one_set_of_frequencies_for_the_worker():
    model = tiny_models.build("phi3-long-short")
    original = model.config.original_max_position_embeddings
    assert models.natural_context(model.config) == original
    frequencies = []
    for length in (original, original + 1, original):
        models.make_paged(model, state_for(model, length))
        rope_module(model)(torch.zeros(1, 1, 8), torch.tensor([[4 * original]]))
        frequencies.append(rope_module(model).inv_freq.clone())
    short, long, again = frequencies
    assert not torch.equal(short, long)
    assert torch.equal(short, again)


def test_learned_positions_are_a_hard_end():
    model = tiny_models.build("gpt2")
    with pytest.raises(UnsupportedModel, match=str(tiny_models.CONTEXT + 1)):
        models.make_paged(model, state_for(model, tiny_models.CONTEXT + 1))


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("llama", (2, 2, 64)),
        ("falcon-7b", (2, 1, 64)),
        ("falcon-new", (2, 2, 64)),
        ("falcon-rw", (2, 4, 64)),
        ("gpt2", (3, 2, 64)),
        ("gpt-neox", (2, 4, 80)),
        ("gemma3", (3, 1, 256)),
        ("phi3-window", (2, 1, 96)),
    ],
)
def test_a_block_takes_the_bytes_of_its_keys_and_values(name, shape):
    model = tiny_models.build(name)
    assert models.kv_shape(model.config) == shape
    pools = state_for(model, 64).pools
    held = sum(pool.keys[0].nbytes + pool.values[0].nbytes for pool in pools)
    assert kv_bytes_per_block(LoadedForTest(model), BLOCK) == held


def test_a_model_can_be_loaded_with_the_paged_attention_by_name(tmp_path):
    from transformers import AutoModelForCausalLM

    for name in ("falcon-7b", "llama"):
        tiny_models.save(name, tmp_path / name)
        model = AutoModelForCausalLM.from_pretrained(
            tmp_path / name, attn_implementation=models.ATTENTION
        )
        runner = make_runner(loaded={"model": model.eval()})
        driver = Driver(runner)
        sequence = driver.add(make_prompt(20), 6)
        driver.run()
        expected, _ = tiny_models.generate(tiny_models.build(name), make_prompt(20), 6)
        assert sequence.output_ids == expected
