"""Tokens as bytes, for tokenizers whose text is the bytes of its tokens one after the other.

That is so where the decoder of the tokenizers library is ByteLevel (GPT-2, Llama 3, Qwen) or
SentencePiece's with byte tokens (Llama 2, Mistral, Gemma). It is recognised by its own
description, and compared with the library over a part of the vocabulary.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")
"""How SentencePiece names the token of a byte."""
_SPACE = {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}
_STRIP = {"type": "Strip", "content": " ", "start": 1, "stop": 0}
_SENTENCE_PIECE = [_SPACE, {"type": "ByteFallback"}, {"type": "Fuse"}]
_COMPARED = 1024
"""Tokens of the vocabulary that are compared with what the library makes of them."""


class Pieces(dict[int, bytes]):
    """Bytes by token id, looked up when they are first asked for; an id without a token has none.

    `strips` says that one space at the beginning of a text is left out.
    """

    def __init__(self, find: Callable[[int], bytes], *, strips: bool = False) -> None:
        super().__init__()
        self._find = find
        self.strips = strips

    def __missing__(self, token_id: int) -> bytes:
        piece = self[token_id] = self._find(token_id)
        return piece

    def text(self, token_ids: list[int]) -> str:
        """All of a text; bytes that are no UTF-8 become U+FFFD."""
        text = b"".join(map(self.__getitem__, token_ids)).decode(errors="replace")
        return text.removeprefix(" ") if self.strips else text


def pieces_of(backend: Any, size: int) -> Pieces | None:
    """The pieces of a `tokenizers.Tokenizer` with ids below `size`; None where text is more than those."""
    pieces = _recognised(backend)
    if pieces is None:
        return None
    some = range(0, size, -(-size // _COMPARED))
    names = map(backend.id_to_token, some)
    ids = [i for i, name in zip(some, names, strict=True) if not BYTE_TOKEN.fullmatch(name or "")]
    ids += backend.get_added_tokens_decoder()
    return pieces if pieces.text(ids) == backend.decode(ids, skip_special_tokens=False) else None


def _recognised(backend: Any) -> Pieces | None:
    if backend.decoder is None:
        return None
    state = json.loads(backend.decoder.__getstate__())
    if state["type"] == "ByteLevel":
        return Pieces(lambda token_id: _letters(backend.id_to_token(token_id) or ""))
    parts = state.get("decoders", [])
    if parts[:3] != _SENTENCE_PIECE or parts[3:] not in ([], [_STRIP]):
        return None
    return Pieces(
        lambda token_id: _sentence_piece(backend.id_to_token(token_id) or ""), strips=len(parts) > 3
    )


def _sentence_piece(name: str) -> bytes:
    byte = BYTE_TOKEN.fullmatch(name)
    return bytes((int(byte[1], 16),)) if byte else name.replace("▁", " ").encode()


def _letters(name: str) -> bytes:
    """A name in which each letter stands for a byte; any other, such as an added token's, is text."""
    try:
        return bytes(map(_BYTE_OF.__getitem__, name))
    except KeyError:
        return name.encode()


def _byte_letters() -> dict[str, int]:
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in plain]
    return dict(zip(map(chr, plain), plain, strict=True)) | {
        chr(256 + index): byte for index, byte in enumerate(others)
    }


_BYTE_OF = _byte_letters()
"""The byte that each letter of a byte-level vocabulary stands for."""
