"""A tokenizer with one word an id, so that every id has a text and every text its ids."""

from __future__ import annotations

from pathlib import Path
from typing import Any

SPECIAL = 2
"""Ids below this are the beginning and the end of a sequence."""


def save(folder: Path, vocabulary: int) -> None:
    """Save it in the hub's layout, for a model of so many ids."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {f"▁w{number}": number for number in range(SPECIAL, vocabulary)}
    tokenizer = Tokenizer(models.WordLevel({"<s>": 0, "</s>": 1} | words, unk_token="<s>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    make: Any = PreTrainedTokenizerFast
    fast = make(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")
    fast.save_pretrained(folder)
