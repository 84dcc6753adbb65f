"""Small checkpoints in the hub's layout, made on the spot."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import small_tokenizers
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    BitsAndBytesConfig,
    LlamaConfig,
    LlamaForCausalLM,
)

from llmkernel.config import WorkerConfig
from llmkernel.protocol import Progress
from llmkernel.worker.checkpoint import INDEX, SINGLE
from llmkernel.worker.loader import LoadedModel, load
from llmkernel.worker.models import FAMILIES


def config(**changes: Any) -> LlamaConfig:
    """A Llama of some 70,000 weights that knows the small tokenizers' ids."""
    values: dict[str, Any] = {
        "vocab_size": 404,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "architectures": ["LlamaForCausalLM"],
    }
    return LlamaConfig(**(values | changes))


def families() -> dict[str, Any]:
    """A small configuration of every supported family, by model type."""
    common: dict[str, Any] = {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
    }
    special: dict[str, dict[str, Any]] = {
        "mixtral": {"num_local_experts": 4},
        "gpt_oss": {"num_local_experts": 4, "layer_types": ["sliding_attention", "full_attention"]},
        "qwen3": {"head_dim": 16},
        "gemma2": {"head_dim": 16},
        "gemma3_text": {"head_dim": 16},
        "gpt2": {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 256},
        "falcon": {"alibi": False, "ffn_hidden_size": 128},
    }
    made = {}
    for kind in FAMILIES:
        values = {} if kind == "gpt2" else common
        if kind in ("falcon", "gpt_neox"):
            values = {name: value for name, value in values.items() if "key_value" not in name}
        ids = {"vocab_size": 404, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 0}
        made[kind] = AutoConfig.for_model(kind, **(values | ids | special.get(kind, {})))
    return made


def save(folder: Path, *, tokenizer: bool = True, **changes: Any) -> LlamaForCausalLM:
    """Save a model with random weights into `folder`; returns it."""
    torch.manual_seed(0)
    model = LlamaForCausalLM(config(**changes)).eval()
    model.save_pretrained(folder)
    if tokenizer:
        small_tokenizers.fast().save_pretrained(folder)
    return model


def save_quantised(
    folder: Path,
    target: Path,
    name: str,
    dtype: torch.dtype = torch.float32,
    double: bool = False,
) -> None:
    """Quantise with bitsandbytes through transformers alone, and save, the rest in `dtype`."""
    if name == "int8":
        settings = BitsAndBytesConfig(load_in_8bit=True)
    else:
        settings = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type=name,
            bnb_4bit_compute_dtype=torch.bfloat16,
            bnb_4bit_use_double_quant=double,
        )
    model = AutoModelForCausalLM.from_pretrained(
        folder, quantization_config=settings, device_map={"": "cpu"}, dtype=dtype
    )
    model.save_pretrained(target)
    small_tokenizers.fast().save_pretrained(target)
    assert "quantization_config" in json.loads((target / "config.json").read_text())


def shard(folder: Path, parts: int = 3) -> list[str]:
    """Cut the single weight file into shards with an index; returns their names."""
    tensors = load_file(folder / SINGLE)
    (folder / SINGLE).unlink()
    names = [f"model-{part + 1:05}-of-{parts:05}.safetensors" for part in range(parts)]
    places = {key: names[i % parts] for i, key in enumerate(sorted(tensors))}
    for name in names:
        kept = {key: tensor for key, tensor in tensors.items() if places[key] == name}
        save_file(kept, folder / name, metadata={"format": "pt"})
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": places}))
    return names


def edit(path: Path, **changes: Any) -> None:
    """Change values of a JSON file; None removes one."""
    values = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in values.items() if value is not None}))


def load_quietly(folder: Path | str, **settings: Any) -> tuple[LoadedModel, list[Progress]]:
    """Load on the CPU; the model and what was reported."""
    reported: list[Progress] = []
    built = WorkerConfig.build(model=str(folder), **({"device": "cpu"} | settings))
    loaded = load(built, reported.append)
    loaded.tokenizer.close()
    return loaded, reported
