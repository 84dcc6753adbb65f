"""Small tokenizers of the three kinds that models have, trained on the spot."""

from __future__ import annotations

import functools

from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)
from transformers import PreTrainedTokenizerFast

CORPUS = (
    "The quick brown fox jumps over the lazy dog, and runs away. It isn't far!",
    "def add(a, b):\n    return a + b  # 12 + 34 == 46",
    "Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich: € 3,50",
    "日本語の文章です。これは短い例です。今日はいい天気ですね。",
    "Emoji: 😀 🎉 👩‍👩‍👧 🇩🇪 and accents: é ñ ü å",
    "مرحبا بالعالم",
)
SPECIAL = ("<s>", "</s>", "<|end|>")
CHAT = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>' + m['content'] + '<|end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


@functools.cache
def byte_level() -> Tokenizer:
    """As GPT-2, Llama 3 and Qwen: bytes as letters."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


@functools.cache
def byte_fallback() -> Tokenizer:
    """As Llama 2 and Mistral: SentencePiece pieces, unknown characters as byte tokens."""
    pieces = ["▁the", "▁a", "▁", "he", "qu", "ick", "▁brown", "日本", "です", "é", "▁is", "n't"]
    letters = sorted({c for text in CORPUS[:3] for c in text if c.isalnum() and c < "\u0100"})
    names = [*SPECIAL, "<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), *pieces, *letters]
    vocabulary = {name: i for i, name in enumerate(dict.fromkeys(names))}
    merges = [("h", "e"), ("q", "u")]
    tokenizer = Tokenizer(
        models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True)
    )
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    tokenizer.add_special_tokens([*SPECIAL, "<unk>"])
    return tokenizer


@functools.cache
def word_piece() -> Tokenizer:
    """As BERT: words and ## continuations, spaces put in by the decoder."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=False)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(
        vocab_size=400, special_tokens=["[UNK]", *SPECIAL], show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


KINDS = {"byte_level": byte_level, "byte_fallback": byte_fallback, "word_piece": word_piece}


def fast(kind: str = "byte_level", chat_template: str | None = CHAT) -> PreTrainedTokenizerFast:
    """The same inside transformers' class, as a checkpoint's tokenizer."""
    backend = Tokenizer.from_str(KINDS[kind]().to_str())
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="</s>", chat_template=chat_template
    )
    tokenizer.add_tokens([AddedToken("<tool>", special=False)])
    return tokenizer
