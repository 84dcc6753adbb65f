"""Incremental text equals full text, whatever the tokenizer and however it is cut."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import small_tokenizers
from tokenizers import Tokenizer

from llmkernel.worker.pieces import pieces_of
from llmkernel.worker.text import (
    REPLACEMENT,
    Detokenizer,
    PieceDetokenizer,
    WindowDetokenizer,
    detokenizer,
)
from llmkernel.worker.tokenizer import HubTokenizer

Make = Callable[..., Detokenizer]

SEQUENCES = 3_400  # for each of three tokenizers


@pytest.fixture(params=sorted(small_tokenizers.KINDS))
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def window(tokenizer: HubTokenizer, skip: bool = True) -> WindowDetokenizer:
    return WindowDetokenizer(tokenizer, tokenizer.special_ids if skip else frozenset())


@pytest.fixture(params=[detokenizer, window])
def make(request: pytest.FixtureRequest) -> Make:
    """What the worker takes for a tokenizer, and what serves every tokenizer."""
    made: Make = request.param
    return made


def hub(kind: str) -> HubTokenizer:
    return HubTokenizer(small_tokenizers.fast(kind, chat_template=None))


def pieces(ids: list[int], choice: random.Random) -> Iterator[list[int]]:
    """`ids` cut at random, some of the parts empty."""
    cuts = sorted(choice.choices(range(len(ids) + 1), k=choice.randrange(len(ids) + 2)))
    for start, end in itertools.pairwise([0, *cuts, len(ids)]):
        yield ids[start:end]


def reference(kind: str, backend: Tokenizer, ids: list[int], skip: bool) -> str:
    """Full text, without the code under test."""
    if kind != "byte_fallback":
        return str(backend.decode(ids, skip_special_tokens=skip))
    special = {
        token for token, entry in backend.get_added_tokens_decoder().items() if entry.special
    }
    data = b""
    for token in ids:
        name = backend.id_to_token(token)
        if skip and token in special:
            continue
        is_byte = len(name) == 6 and name.startswith("<0x")
        data += bytes([int(name[3:5], 16)]) if is_byte else name.replace("▁", " ").encode()
    return data.decode(errors="replace").removeprefix(" ")


@pytest.mark.parametrize("skip", [True, False])
def test_deltas_add_up_to_the_full_text(kind: str, skip: bool, make: Make) -> None:
    tokenizer, choice = hub(kind), random.Random(f"{kind}{skip}")
    backend = small_tokenizers.fast(kind, None).backend_tokenizer
    texts = [tokenizer.encode(text, False) for text in small_tokenizers.CORPUS]
    for _ in range(SEQUENCES // 2):
        ids = [choice.randrange(tokenizer.vocab_size) for _ in range(choice.randrange(1, 40))]
        if choice.random() < 0.5:
            ids += choice.choice(texts) + ids[:3]
        stream = make(tokenizer, skip)
        deltas = [stream.push(part) for part in pieces(ids, choice)]
        assert "".join([*deltas, stream.flush()]) == reference(kind, backend, ids, skip)
        assert tokenizer.decode(ids, skip) == reference(kind, backend, ids, skip)


def test_text_of_valid_ids_is_what_the_library_decodes(kind: str, make: Make) -> None:
    tokenizer = hub(kind)
    backend = small_tokenizers.fast(kind, None).backend_tokenizer
    for text in small_tokenizers.CORPUS:
        ids = tokenizer.encode(text)
        stream = make(tokenizer)
        assert "".join(map(stream.push, [[i] for i in ids])) + stream.flush() == (
            backend.decode(ids)
        )


def test_no_half_character_is_ever_shown(kind: str, make: Make) -> None:
    tokenizer = hub(kind)
    for text in small_tokenizers.CORPUS:
        ids = tokenizer.encode(text, add_special_tokens=False)
        full = tokenizer.decode(ids, skip_special_tokens=True)
        stream, shown = make(tokenizer), ""
        for count, token in enumerate(ids, 1):
            shown += stream.push([token])
            assert full.startswith(shown)
            so_far = tokenizer.decode(ids[:count], skip_special_tokens=True)
            assert len(so_far) - len(shown) in (0, 1)
        assert shown + stream.flush() == full
        assert REPLACEMENT not in shown


def test_a_character_in_four_tokens_comes_whole(make: Make) -> None:
    tokenizer = hub("byte_level")
    ids = [token for byte in "🦊".encode() for token in single_byte(tokenizer, byte)]
    stream = make(tokenizer)
    assert [stream.push([token]) for token in ids] == ["", "", "", "🦊"]
    assert stream.flush() == ""


def test_an_unfinished_character_is_flushed(make: Make) -> None:
    for kind in ("byte_level", "byte_fallback"):
        tokenizer = hub(kind)
        ids = [token for byte in "ab🦊".encode()[:-1] for token in single_byte(tokenizer, byte)]
        stream = make(tokenizer)
        assert "".join(stream.push([token]) for token in ids) == "ab"
        assert stream.flush() == REPLACEMENT


def test_genuine_replacement_characters_are_not_held_for_ever(make: Make) -> None:
    tokenizer = hub("byte_level")
    ids = [token for byte in (REPLACEMENT * 50).encode() for token in single_byte(tokenizer, byte)]
    stream, shown = make(tokenizer), ""
    for count, token in enumerate(ids, 1):
        shown += stream.push([token])
        assert len(shown) >= count // 3 - 1
    assert shown + stream.flush() == REPLACEMENT * 50


def test_bytes_that_are_no_text_keep_flowing(make: Make) -> None:
    for kind in ("byte_level", "byte_fallback"):
        tokenizer = hub(kind)
        ids = single_byte(tokenizer, 0xFF) * 300
        stream, shown = make(tokenizer), ""
        for count, token in enumerate(ids, 1):
            shown += stream.push([token])
            assert len(shown) >= count - 1
            assert not isinstance(stream, WindowDetokenizer) or len(stream._window) <= 13
        assert shown + stream.flush() == REPLACEMENT * 300


def test_an_invalid_byte_takes_back_nothing_that_was_shown(make: Make) -> None:
    tokenizer = hub("byte_fallback")
    ids = [token for byte in "€".encode() + b"\xffA" for token in single_byte(tokenizer, byte)]
    stream = make(tokenizer)
    shown = "".join(stream.push([token]) for token in ids) + stream.flush()
    assert shown == f"€{REPLACEMENT}A" == tokenizer.decode(ids)


def test_special_tokens_are_left_out_unless_asked_for(kind: str, make: Make) -> None:
    tokenizer = hub(kind)
    end = tokenizer.encode("<|end|>", add_special_tokens=False)[-1]
    ids = [*tokenizer.encode("a", False), end, *tokenizer.encode("a", False), end]
    assert REPLACEMENT not in tokenizer.decode(ids)
    for skip in (True, False):
        stream = make(tokenizer, skip)
        text = "".join(stream.push([token]) for token in ids) + stream.flush()
        assert text == tokenizer.decode(ids, skip)
        assert ("<|end|>" in text) is not skip


def test_nothing_in_gives_nothing_out(kind: str, make: Make) -> None:
    stream = make(hub(kind))
    assert (stream.push([]), stream.flush()) == ("", "")


def test_texts_that_are_the_bytes_of_their_tokens_are_put_together_from_them(kind: str) -> None:
    stream = detokenizer(hub(kind))
    assert isinstance(stream, WindowDetokenizer if kind == "word_piece" else PieceDetokenizer)


def test_a_decoder_that_does_not_do_what_its_kind_does_is_not_trusted() -> None:
    backend = small_tokenizers.fast("byte_level", None).backend_tokenizer
    assert pieces_of(backend, 401) is not None
    assert pieces_of(_Shouting(backend), 401) is None


class _Shouting:
    """A tokenizer whose texts are in capitals."""

    def __init__(self, backend: Tokenizer) -> None:
        self._backend = backend

    def decode(self, ids: list[int], skip_special_tokens: bool) -> str:
        return str(self._backend.decode(ids, skip_special_tokens=skip_special_tokens)).upper()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)


def single_byte(tokenizer: HubTokenizer, byte: int) -> list[int]:
    """The token of one byte."""
    if tokenizer._bytes:
        return [token for token, value in tokenizer._bytes.items() if value == byte]
    letters = small_tokenizers.byte_level().get_vocab()
    return [letters[byte_letter(byte)]]


def byte_letter(byte: int) -> str:
    """The letter that stands for a byte in byte-level vocabularies."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [value for value in range(256) if value not in plain]
    return chr(byte) if byte in plain else chr(256 + others.index(byte))
