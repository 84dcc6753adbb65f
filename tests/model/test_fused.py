"""Fused decoder layers answer as transformers' own; what does not fit keeps those."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from benchmarks import tiny_models
from llmkernel.worker.kernels import layer
from llmkernel.worker.kernels.paged_attention import Pool
from llmkernel.worker.models.fused import FusedLayer, FusedNorm, FusedRotary
from llmkernel.worker.models.packed import pack_layers
from llmkernel.worker.models.serving import describe
from tests.model.driving import Driver, make_prompt, make_runner
from tests.model.quantised import quantise

pytestmark = [
    pytest.mark.timeout(120),
    # bitsandbytes brings torch's deprecated script methods
    pytest.mark.filterwarnings("ignore:.*script_method:DeprecationWarning"),
]
FUSED = ["llama", "llama-rope3", "mistral-window", "qwen2-tied", "qwen2-window", "qwen3"]
OTHERS = ["gemma2", "phi3-window", "gpt-neox", "olmo2"]
LENGTHS = (5, 17, 40)


def packed_model(name: str):
    model = quantise(tiny_models.build(name), torch.float32, "cpu")
    assert pack_layers(model) > 0
    return model


def fused_layers(model):
    return [part for part in model.modules() if isinstance(part, FusedLayer)]


@pytest.mark.parametrize("name", FUSED)
def test_fused_layers_answer_as_transformers_own(name):
    model = packed_model(name)
    expected = [tiny_models.generate(model, make_prompt(n, n), 12) for n in LENGTHS]
    runner = make_runner(name, loaded={"model": model})
    assert len(fused_layers(model)) == model.config.num_hidden_layers
    assert isinstance(model.model.norm, FusedNorm)
    assert isinstance(model.model.rotary_emb, FusedRotary)
    driver = Driver(runner, depth=1, chunk=9)
    sequences = [driver.add(make_prompt(n, n), 12) for n in LENGTHS]
    driver.run()
    for sequence, (tokens, leads) in zip(sequences, expected, strict=True):
        assert min(leads) > 1e-5, "too close to tell"
        assert list(sequence.output_ids) == tokens


def test_status_says_whose_code_computes(monkeypatch):
    model = packed_model("llama")
    model.model.layers[1].self_attn.odd = nn.Linear(8, 8)  # of no known structure
    assert make_runner("llama", loaded={"model": model}).kernels == (
        "llmkernel's 4-bit products, 1 of 2 layers fused"
    )
    assert make_runner("llama").kernels == "torch's products"
    quantised = quantise(tiny_models.build("llama"), torch.float32, "cpu")
    assert make_runner("llama", loaded={"model": quantised}).kernels == "bitsandbytes' products"
    quantised.model.layers[0].mlp.up_proj = model.model.layers[1].mlp.down_proj
    assert describe(quantised, split_attention=True, graphs=True) == (
        "bitsandbytes' products (13), llmkernel's 4-bit products (1), split attention, CUDA graphs"
    )
    monkeypatch.setattr("llmkernel.worker.models.serving.tells_apart", lambda model: True)
    assert describe(quantised, split_attention=True, graphs=False).endswith(", cluster attention")
    assert describe(quantised, split_attention=False, graphs=False).endswith("products (1)")


@pytest.mark.parametrize("name", OTHERS)
def test_layers_of_another_structure_keep_their_code(name):
    model = packed_model(name)
    make_runner(name, loaded={"model": model})
    assert not fused_layers(model)


def test_layers_that_are_not_packed_keep_their_code():
    model = tiny_models.build("llama")
    make_runner("llama", loaded={"model": model})
    assert not fused_layers(model)


def test_a_layer_that_computes_something_else_keeps_its_code(caplog):
    model = packed_model("llama")
    odd = model.model.layers[1]
    network = odd.mlp.forward
    odd.mlp.forward = lambda x: 1.1 * network(x)
    make_runner("llama", loaded={"model": model})
    assert fused_layers(model) == [model.model.layers[0]]
    assert "transformers' code stays: relative error" in caplog.text
    caplog.clear()


# Kernels -------------------------------------------------------------------------------


def rope_case(device: str, dtype: torch.dtype, head_dim: int, norms: bool):
    generator = torch.Generator().manual_seed(head_dim)

    def random(*shape):
        return torch.randn(*shape, generator=generator).to(device, dtype)

    tokens, query_heads, kv_heads = 5, 6, 2
    merged = random(tokens, (query_heads + 2 * kv_heads) * head_dim)
    angles = random(tokens, head_dim // 2).repeat(1, 2)
    pool = Pool(random(4, 16, kv_heads, head_dim), random(4, 16, kv_heads, head_dim))
    slots = torch.tensor([3, 17, 40, 16, 63], device=device)
    weights = (random(head_dim), random(head_dim), 1e-6) if norms else None
    return merged, (angles.cos(), angles.sin()), pool, slots, weights


@pytest.mark.parametrize("norms", [False, True])
def test_rotation_is_transformers_own(norms):
    from transformers.models.qwen3.modeling_qwen3 import Qwen3RMSNorm, apply_rotary_pos_emb

    merged, rotary, pool, slots, weights = rope_case("cpu", torch.float32, 64, norms)
    before = pool.keys.clone(), pool.values.clone()
    query = layer.rope_write(merged, rotary, pool, slots, weights)
    heads = merged.view(5, 10, 64)
    parts = [heads[:, :6], heads[:, 6:8]]
    if weights:
        for index in range(2):
            norm = Qwen3RMSNorm(64, 1e-6)
            norm.weight.data = weights[index]
            parts[index] = norm(parts[index])
    expected = apply_rotary_pos_emb(*parts, *rotary, unsqueeze_dim=1)
    torch.testing.assert_close(query, expected[0])
    flat = pool.keys.flatten(0, 1), pool.values.flatten(0, 1)
    torch.testing.assert_close(flat[0][slots], expected[1])
    torch.testing.assert_close(flat[1][slots], heads[:, 8:])
    others = [slot for slot in range(64) if slot not in slots.tolist()]
    for now, then in zip(flat, before, strict=True):
        assert torch.equal(now[others], then.flatten(0, 1)[others]), "nothing else is written"


GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@GPU
@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("head_dim", [64, 80, 96, 128, 256])
@pytest.mark.parametrize("norms", [False, True])
def test_the_kernel_of_rotation_is_near_the_reference(dtype, head_dim, norms):
    merged, rotary, pool, slots, weights = rope_case("cuda", dtype, head_dim, norms)
    host = Pool(pool.keys.cpu().float(), pool.values.cpu().float())
    widened = None if weights is None else (weights[0].cpu(), weights[1].cpu(), weights[2])
    expected = layer.rope_write(
        merged.cpu().float(),
        (rotary[0].cpu(), rotary[1].cpu()),
        host,
        slots.cpu(),
        widened,
    )
    query = layer.rope_write(merged, rotary, pool, slots, weights)
    close = {"rtol": 1e-2, "atol": 1e-2}
    torch.testing.assert_close(query.cpu().float(), expected, **close)
    torch.testing.assert_close(pool.keys.cpu().float(), host.keys, **close)
    torch.testing.assert_close(pool.values.cpu().float(), host.values, **close)


@pytest.mark.parametrize("wrong", ["inv_freq", "attention_scaling", "rope_type"])
def test_a_rotary_embedding_that_is_another_one_stays(wrong):
    model = packed_model("llama")
    rotary = model.model.rotary_emb
    if wrong == "rope_type":
        rotary.rope_type = "dynamic"
    else:  # it computes with what it had, whatever its attributes say now
        rotary.forward = copy.deepcopy(rotary).forward
        setattr(rotary, wrong, getattr(rotary, wrong) * 1.1)
    make_runner("llama", loaded={"model": model})
    assert model.model.rotary_emb is rotary
    assert fused_layers(model), "its layers have no part in it"


@GPU
@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_kernel_of_the_rotary_embedding_is_near_the_reference(dtype):
    positions = torch.tensor([0, 1, 77, 8191, 131071], device="cuda")
    frequencies = 500000.0 ** -(torch.arange(0, 128, 2, device="cuda") / 128)
    mine = layer.rotary(positions, frequencies, 1.2, dtype)
    wide = layer.rotary(positions.cpu(), frequencies.cpu(), 1.2, torch.float32)
    for one, expected in zip(mine, wide, strict=True):
        torch.testing.assert_close(one.float().cpu(), expected, rtol=1e-2, atol=1e-2)


@GPU
@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("width", [64, 896, 2560, 4096, 8192])
@pytest.mark.parametrize("count", [1, 7, 300])
def test_the_kernel_of_the_norm_is_near_the_reference(dtype, width, count):
    x = torch.randn(count, width, device="cuda", dtype=dtype)
    weight = torch.randn(width, device="cuda", dtype=dtype)
    expected = layer.rms_norm(x.cpu().float(), weight.cpu().float(), 1e-5)
    torch.testing.assert_close(
        layer.rms_norm(x, weight, 1e-5).cpu().float(), expected, rtol=1e-2, atol=1e-2
    )


@GPU
@pytest.mark.gpu
@pytest.mark.parametrize("name", FUSED)
def test_fused_layers_on_a_gpu(name, monkeypatch):
    monkeypatch.setenv("LLMKERNEL_KERNELS", "1")
    model = quantise(tiny_models.build(name), torch.bfloat16, "cuda")
    assert pack_layers(model) > 0
    runner = make_runner(
        name,
        loaded={"model": model, "device": torch.device("cuda"), "dtype": torch.bfloat16},
    )
    assert len(fused_layers(model)) == model.config.num_hidden_layers
    driver = Driver(runner, depth=1, chunk=9)
    sequences = [driver.add(make_prompt(n, n), 12) for n in LENGTHS]
    driver.run()
    assert all(min(sequence.output_ids) >= 0 for sequence in sequences)
