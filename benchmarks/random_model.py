"""A random Llama of any size in a folder, as the hub would lay it out. Says nothing, at full speed."""

from __future__ import annotations

from pathlib import Path

SIZES = {
    "100M": {
        "hidden_size": 768,
        "intermediate_size": 2048,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "num_key_value_heads": 12,
    },
    "tiny": {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    },
}
VOCABULARY = 8192
SPECIAL = 2
"""Ids below this are the beginning and the end of a sequence."""


def build(folder: Path, size: str) -> int:
    """Save config, float32 safetensors and tokenizer; returns the number of parameters."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        **SIZES[size],
        vocab_size=VOCABULARY,
        max_position_embeddings=2048,
        bos_token_id=0,
        eos_token_id=1,
        tie_word_embeddings=False,
    )
    model = LlamaForCausalLM(config).to(torch.float32)
    model.save_pretrained(folder, safe_serialization=True)
    _tokenizer(folder)
    return sum(parameter.numel() for parameter in model.parameters())


def prompts(count: int, length: int, first: int = 0) -> list[list[int]]:
    """Prompts of `length` ids of which no two share a block of their beginning."""
    span = VOCABULARY - SPECIAL
    return [
        [SPECIAL + (number * 7919 + place * 31) % span for place in range(length)]
        for number in range(first, first + count)
    ]


def _tokenizer(folder: Path) -> None:
    # One word an id, so that every id has a text and every text its ids.
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {f"▁w{number}": number for number in range(SPECIAL, VOCABULARY)}
    tokenizer = Tokenizer(models.WordLevel({"<s>": 0, "</s>": 1} | words, unk_token="<s>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")
    fast.save_pretrained(folder)
