"""Tiny random models of every supported family, in the hub's layout.

Float32, two or three layers, a vocabulary of 384. Between them they cover what a
family can ask of attention: grouped, single and equal key heads, head sizes 64 to 256,
sliding windows shorter than the prompts, soft-capping, sinks, qk-norm, partial
and scaled rotary embeddings, learned positions, tied and untied embeddings, experts.
Every inner dimension is a multiple of 64, so that they can be quantised.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

VOCABULARY = 384
SPECIAL = 2
"""Ids below this are the beginning and the end of a sequence."""
WINDOW = 24
CONTEXT = 512

_BASE: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": CONTEXT,
    "tie_word_embeddings": False,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": None,
}
_ALTERNATING = ["sliding_attention", "full_attention"]


def _longrope(original: int) -> dict[str, Any]:
    pairs = 48  # half of the head size
    factors = {
        "rope_type": "longrope",
        "rope_theta": 10000.0,
        "attention_factor": 1.2,
        "short_factor": [1.0 + 0.01 * i for i in range(pairs)],
        "long_factor": [1.0 + 0.25 * i for i in range(pairs)],
    }
    return {"original_max_position_embeddings": original, "rope_parameters": factors}


def _phi3(**changes: Any) -> dict[str, Any]:
    # head size 96: hidden_size / num_attention_heads
    return {"hidden_size": 192, "num_attention_heads": 2, "num_key_value_heads": 1, **changes}


def _falcon(**changes: Any) -> dict[str, Any]:
    return {"hidden_size": 256, "num_key_value_heads": None, "ffn_hidden_size": 256, **changes}


def _gemma(**changes: Any) -> dict[str, Any]:
    return {
        "tie_word_embeddings": True,
        "num_hidden_layers": len(changes["layer_types"]),
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 256,
        "query_pre_attn_scalar": 200,
        "sliding_window": WINDOW,
        **changes,
    }


VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {"head_dim": 64}),
    "llama-rope3": (
        "llama",
        {
            "head_dim": 64,
            "num_key_value_heads": 4,
            "tie_word_embeddings": True,
            "attention_bias": True,
            "rope_parameters": {
                "rope_type": "llama3",
                "rope_theta": 10000.0,
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 64,
            },
        },
    ),
    "mistral-window": ("mistral", {"head_dim": 64, "sliding_window": WINDOW}),
    "mixtral": ("mixtral", {"head_dim": 64, "num_local_experts": 4, "sliding_window": None}),
    "qwen2-tied": ("qwen2", {"hidden_size": 256, "tie_word_embeddings": True}),
    "qwen2-window": (
        "qwen2",
        {
            "hidden_size": 256,
            "use_sliding_window": True,
            "sliding_window": WINDOW,
            "max_window_layers": 1,
        },
    ),
    "qwen3": ("qwen3", {"head_dim": 128, "num_attention_heads": 2, "num_key_value_heads": 1}),
    "gemma2": (
        "gemma2",
        _gemma(
            layer_types=_ALTERNATING, attn_logit_softcapping=5.0, final_logit_softcapping=8.0
        ),
    ),
    "gemma3": (
        "gemma3_text",
        _gemma(
            layer_types=["sliding_attention", *_ALTERNATING],
            rope_parameters={
                "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
                "full_attention": {"rope_type": "linear", "rope_theta": 1e6, "factor": 8.0},
            },
        ),
    ),
    "phi3-window": ("phi3", _phi3(sliding_window=WINDOW)),
    "phi3-long-short": ("phi3", _phi3(**_longrope(CONTEXT // 2))),
    "phi3-long-long": ("phi3", _phi3(**_longrope(4))),
    "falcon-7b": ("falcon", _falcon(multi_query=True, tie_word_embeddings=True)),
    "falcon-new": (
        "falcon",
        _falcon(new_decoder_architecture=True, num_kv_heads=2),
    ),
    "falcon-rw": (
        "falcon",
        _falcon(multi_query=False, parallel_attn=False, bias=True, alibi=False),
    ),
    "gpt-neox": (
        "gpt_neox",
        {
            "hidden_size": 320,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10000.0,
                "partial_rotary_factor": 0.25,
            },
        },
    ),
    "gpt2": ("gpt2", {"tie_word_embeddings": True, "n_embd": 128, "n_layer": 3, "n_head": 2, "n_positions": CONTEXT}),
    "olmo2": ("olmo2", {"hidden_size": 256}),
    "starcoder2": (
        "starcoder2",
        {"hidden_size": 128, "num_attention_heads": 2, "num_key_value_heads": 1,
         "sliding_window": WINDOW},
    ),
    "gpt-oss": (
        "gpt_oss",
        {
            "head_dim": 64,
            "num_local_experts": 4,
            "num_experts_per_tok": 2,
            "sliding_window": WINDOW,
            "layer_types": _ALTERNATING,
            "rope_parameters": {
                "rope_type": "yarn",
                "rope_theta": 10000.0,
                "factor": 8.0,
                "original_max_position_embeddings": CONTEXT // 8,
            },
        },
    ),
}  # fmt: skip
"""By name: the model type and what differs from the base."""


def context_of(name: str) -> int:
    """The context length to serve a variant with: all it has, except where that shows less."""
    return CONTEXT // 2 if name == "phi3-long-short" else CONTEXT


def config_of(name: str) -> Any:
    """The transformers configuration of a variant."""
    from transformers import AutoConfig

    model_type, changes = VARIANTS[name]
    values = {**_BASE, **changes}
    if model_type == "gpt2":
        for unused in ("hidden_size", "num_hidden_layers", "num_attention_heads",
                       "num_key_value_heads", "intermediate_size", "max_position_embeddings"):  # fmt: skip
            del values[unused]
    return AutoConfig.for_model(model_type, **values)


def build(name: str, seed: int = 0) -> Any:
    """A random model of a variant: float32, eval, transformers' eager attention.

    The weights are large enough that logits are far apart and texts do not repeat.
    """
    import torch
    from transformers import AutoModelForCausalLM

    config = config_of(name)
    config._attn_implementation = "eager"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        auto: Any = AutoModelForCausalLM
        model = auto.from_config(config, dtype=torch.float32).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            parameter.copy_(_random(parameter_name, parameter, generator))
        if config.tie_word_embeddings:
            # where the output is looked up among the inputs, a token must not drown what follows
            scale = 0.04 if "gemma" in config.model_type else 0.1
            model.get_input_embeddings().weight.mul_(scale)
    model.tie_weights()
    return model


def _random(name: str, parameter: Any, generator: Any) -> Any:
    import torch

    noise = torch.randn(parameter.shape, generator=generator)
    if parameter.dim() == 1:  # norms stay near what they are; biases and sinks become visible
        return parameter + 0.1 * noise if "sinks" not in name else noise
    if any(part in name for part in ("embed", "wte", "wpe", "lm_head")):
        return noise
    return noise * 1.5 * parameter.shape[-1] ** -0.5


def save(name: str, folder: Path, seed: int = 0) -> None:
    """Save config, safetensors and a word-level tokenizer with one word an id."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    model = build(name, seed)
    model.config.architectures = [type(model).__name__]
    model.save_pretrained(folder, safe_serialization=True)
    words = {f"w{number}": number for number in range(SPECIAL, VOCABULARY)}
    tokenizer = Tokenizer(models.WordLevel({"<s>": 0, "</s>": 1} | words, unk_token="<s>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Fuse()
    fast: Any = PreTrainedTokenizerFast
    fast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>").save_pretrained(folder)


def generate(model: Any, prompt: list[int], new_tokens: int) -> tuple[list[int], list[float]]:
    """transformers' own greedy answer, unbatched, and each token's lead over the next best.

    A lead is given as a fraction of the largest logit, as rounding errors grow with it.
    """
    import torch

    with torch.inference_mode():
        output = model.generate(
            torch.tensor([prompt], device=model.device),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long, device=model.device),
            max_new_tokens=new_tokens,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
            return_dict_in_generate=True,
            output_logits=True,
        )
    logits = torch.cat(output.logits)
    best = logits.topk(2, -1).values
    leads = (best[:, 0] - best[:, 1]) / logits.abs().amax(-1)
    return output.sequences[0, len(prompt) :].tolist(), leads.tolist()
