"""How much a model takes, known before it is loaded."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest
import small_checkpoints
import torch
from transformers import FalconConfig, GPT2Config, LlamaConfig, MixtralConfig

from llmkernel.worker import memory
from llmkernel.worker.quantization import Quantized

LLAMA_8B = LlamaConfig(
    vocab_size=128256,
    hidden_size=4096,
    intermediate_size=14336,
    num_hidden_layers=32,
    num_attention_heads=32,
    num_key_value_heads=8,
)
LINEAR_8B = 32 * (2 * 4096 * 4096 + 2 * 4096 * 1024 + 3 * 4096 * 14336)
EMBEDDED_8B = 2 * 128256 * 4096 + 65 * 4096


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("none", 2 * (LINEAR_8B + EMBEDDED_8B)),
        ("nf4", LINEAR_8B // 2 + LINEAR_8B // 64 * 4 + 2 * EMBEDDED_8B),
        ("fp4", LINEAR_8B // 2 + LINEAR_8B // 64 * 4 + 2 * EMBEDDED_8B),
    ],
)
def test_an_8b_model_takes_what_its_layers_add_up_to(name: str, expected: int) -> None:
    empty = memory.empty_model(LLAMA_8B)
    assert memory.expected_bytes(empty, Quantized(name), torch.bfloat16) == expected


def test_int8_takes_a_byte_and_a_scale_for_each_row() -> None:
    empty = memory.empty_model(LLAMA_8B)
    rows = 32 * (2 * 4096 + 2 * 1024 + 2 * 14336 + 4096)
    assert memory.expected_bytes(empty, Quantized("int8"), torch.float16) == (
        LINEAR_8B + 4 * rows + 2 * EMBEDDED_8B
    )


def test_quantising_needs_the_largest_tensor_once_more() -> None:
    empty = memory.empty_model(LLAMA_8B)
    for stored, extra in ((False, 2 * 128256 * 4096), (True, 0)):
        decided = Quantized("nf4", stored)
        peak = memory.peak_bytes(empty, decided, torch.bfloat16)
        assert peak - memory.expected_bytes(empty, decided, torch.bfloat16) == extra


def test_fused_experts_are_counted_unquantised() -> None:
    empty = memory.empty_model(MixtralConfig(num_hidden_layers=1))
    experts = 8 * 3 * 4096 * 14336
    taken = memory.expected_bytes(empty, Quantized("nf4"), torch.bfloat16)
    assert taken > 2 * experts


@pytest.mark.parametrize("config", [GPT2Config(n_layer=1), FalconConfig(num_hidden_layers=1)])
def test_other_kinds_of_linear_layers_are_counted_quantised(config: object) -> None:
    empty = memory.empty_model(config)
    whole = memory.expected_bytes(empty, Quantized("none"), torch.bfloat16)
    kept = 2 * empty.get_output_embeddings().weight.numel()  # tied in both
    quantised = memory.expected_bytes(empty, Quantized("nf4"), torch.bfloat16) - kept
    assert quantised < 0.4 * (whole - kept)  # GPT-2 has an embedding of positions, too


def test_an_empty_model_takes_no_memory() -> None:
    before = psutil.Process().memory_info().rss
    empty = memory.empty_model(LLAMA_8B)
    assert all(parameter.is_meta for parameter in empty.parameters())
    assert psutil.Process().memory_info().rss - before < 100 * 2**20


def test_what_was_taken_counts_shared_weights_once(tmp_path: Path) -> None:
    model = small_checkpoints.save(tmp_path, tie_word_embeddings=True)
    buffers = sum(buffer.nbytes for buffer in model.buffers())
    weights = sum(parameter.nbytes for parameter in model.parameters())
    assert memory.taken_bytes(model) == weights + buffers


def test_free_memory_is_at_most_the_machines() -> None:
    free = memory.free_bytes(torch.device("cpu"))
    assert 0 < free <= psutil.virtual_memory().total


def test_a_containers_limit_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("memory.max", "memory.current", "memory.stat")
    files = tuple(str(tmp_path / name) for name in names)
    monkeypatch.setattr(memory, "_CGROUPS", (files,))
    for name, text in zip(names, ("3000", "2500", "anon 1\ninactive_file 700\n"), strict=True):
        (tmp_path / name).write_text(text)
    assert memory.free_bytes(torch.device("cpu")) == 1200
    (tmp_path / "memory.max").write_text("max")
    assert memory.free_bytes(torch.device("cpu")) > 10**6
    (tmp_path / "memory.max").write_text("1000")
    assert memory.free_bytes(torch.device("cpu")) == 0
