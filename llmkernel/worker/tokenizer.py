"""A model's own tokenizer, as the worker uses it.

Only tokenizers of the `tokenizers` library: they are thread-safe when nobody
changes them, fast, and hold everything in one file of data. The library's object
is used directly, because transformers' wrapper sets truncation and padding on it
with every call.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from llmkernel.errors import BrokenCheckpoint, InvalidRequest, UnsupportedModel
from llmkernel.worker.chat import ChatTemplate
from llmkernel.worker.pieces import BYTE_TOKEN, pieces_of

_LONG = 1000
"""Tokens from which on the work is worth a turn of the library's own threads."""


class HubTokenizer:
    """A tokenizer off the hub or out of a folder; implements `text.Tokenizer`.

    `fast` is what AutoTokenizer gave; `extra_eos` are the end-of-sequence ids that
    generation_config names. `model_vocab` is the number of ids that the model has
    embeddings for, where it is known: a tokenizer may have more (Gemma's has one for
    images), and those can be neither read nor written. Raises UnsupportedModel for a
    tokenizer that is not one of the tokenizers library.
    """

    def __init__(
        self, fast: Any, extra_eos: Iterable[int] = (), model_vocab: int | None = None
    ) -> None:
        backend = getattr(fast, "backend_tokenizer", None)
        if backend is None:
            raise UnsupportedModel(
                f"The tokenizer ({type(fast).__name__}) is a slow one. llmkernel needs a "
                "tokenizer.json; AutoTokenizer.from_pretrained(...).save_pretrained(FOLDER) "
                "makes one where the tokenizer has a fast form."
            )
        backend.no_truncation()
        backend.no_padding()
        self._backend = backend
        size = max(backend.get_vocab(with_added_tokens=True).values(), default=-1) + 1
        if not size:
            raise BrokenCheckpoint("The tokenizer has no tokens.")
        self.vocab_size = size if model_vocab is None else min(size, model_vocab)
        self._surplus = size > self.vocab_size
        added = backend.get_added_tokens_decoder()
        self.special_ids = frozenset(token for token, entry in added.items() if entry.special)
        self._added = frozenset(added)
        self.pieces = pieces_of(backend, size)
        self._bytes = self._byte_tokens()
        self._texts: dict[int, str] = {}
        self._neighbour = self._plain_tokens()
        self._chat = _template(fast)
        ends = {*extra_eos, *_own_eos(fast), *self._turn_end()}
        self.eos_token_ids = frozenset(token for token in ends if 0 <= token < self.vocab_size)

    @property
    def has_chat_template(self) -> bool:
        """Whether `render_chat` works."""
        return self._chat is not None

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        """Token ids of `text`.

        Raises InvalidRequest for half a surrogate pair and for a token without an embedding.
        """
        try:
            # `encode` would hold the interpreter lock, and so everybody, for all of a long text
            [encoding] = self._backend.encode_batch_fast(
                [text], add_special_tokens=add_special_tokens
            )
        except (UnicodeEncodeError, TypeError):
            raise InvalidRequest("The text holds half of a surrogate pair.") from None
        ids: list[int] = encoding.ids
        if self._surplus and ids and max(ids) >= self.vocab_size:
            token = self._backend.id_to_token(max(ids))
            raise InvalidRequest(f"The text holds {token!r}, which this model cannot read.")
        return ids

    def decode(self, token_ids: Sequence[int], skip_special_tokens: bool = False) -> str:
        """Text of ids; ids without a token have none, and bytes that are no UTF-8 become U+FFFD.

        Where a tokenizer falls back to byte tokens, a run of them that is not UTF-8
        keeps its valid characters; the tokenizers library would replace every byte
        of the run, and so take back text that was streamed.
        """
        try:
            if self._bytes and not self._bytes.keys().isdisjoint(token_ids):
                return self._decode_bytes(token_ids, skip_special_tokens)
            if len(token_ids) > _LONG:  # `decode` holds the interpreter lock, as `encode` does
                [text] = self._backend.decode_batch([token_ids], skip_special_tokens)
                return text  # type: ignore[no-any-return]
            return self._backend.decode(token_ids, skip_special_tokens)  # type: ignore[no-any-return]
        except OverflowError:
            raise InvalidRequest("A token id is negative or far too large.") from None

    def token_text(self, token_id: int) -> str:
        """Text of one token as it stands inside a text, its leading space included."""
        text = self._texts.get(token_id)
        if text is None:
            alone = self.decode(self._neighbour)
            text = self.decode([*self._neighbour, token_id]).removeprefix(alone)
            self._texts[token_id] = text
        return text

    def render_chat(self, messages: Sequence[Mapping[str, str]], continue_final: bool) -> str:
        """The prompt for a conversation; see `ChatTemplate.render`."""
        if self._chat is None:
            raise InvalidRequest(
                "This model has no chat template. Send a plain prompt, or use a model made for chat."
            )
        return self._chat.render(messages, continue_final)

    def close(self) -> None:
        """End the process behind the chat template."""
        if self._chat is not None:
            self._chat.close()

    def _decode_bytes(self, token_ids: Sequence[int], skip_special_tokens: bool) -> str:
        if skip_special_tokens:
            token_ids = [token for token in token_ids if token not in self.special_ids]
        return self._backend.decoder.decode(list(self._tokens(token_ids)))  # type: ignore[no-any-return]

    def _tokens(self, token_ids: Sequence[int]) -> Iterator[str]:
        for is_byte, run in groupby(token_ids, self._bytes.__contains__):
            if is_byte:
                # a token for each character, so that none of them looks like a byte token
                yield from bytes(self._bytes[token] for token in run).decode(errors="replace")
            else:
                tokens = map(self._backend.id_to_token, run)
                yield from (token for token in tokens if token is not None)

    def _byte_tokens(self) -> dict[int, int]:
        """Byte of each fallback token; empty where the decoder does not know them."""
        decoder = self._backend.decoder
        if decoder is None or decoder.decode(["<0x41>"]) != "A":
            return {}
        vocabulary = self._backend.get_vocab(with_added_tokens=False)
        found = ((token, BYTE_TOKEN.fullmatch(text)) for text, token in vocabulary.items())
        return {token: int(match[1], 16) for token, match in found if match}

    def _plain_tokens(self) -> list[int]:
        # a left neighbour makes the decoder keep a token's leading space
        for text in ("a", "x", "0", "."):
            with contextlib.suppress(InvalidRequest):  # a model may have fewer embeddings
                ids = self.encode(text, add_special_tokens=False)
                if self.decode(ids) == text:
                    return ids
        return []

    def _turn_end(self) -> frozenset[int]:
        """The added token that the chat template writes right after an assistant's turn."""
        if self._chat is None:
            return frozenset()
        answer = f"answer{secrets.token_hex(8)}"
        turns = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": answer}]
        try:
            after = self._chat.render([*turns, {"role": "user", "content": "hello"}])
            ids = self.encode(after.partition(answer)[2].lstrip(), add_special_tokens=False)
        except InvalidRequest:
            return frozenset()  # a template, or a model, for something else than plain turns
        return frozenset(ids[:1]) & self._added


def _own_eos(fast: Any) -> list[int]:
    return [] if fast.eos_token_id is None else [fast.eos_token_id]


def _template(fast: Any) -> ChatTemplate | None:
    source = fast.chat_template
    if isinstance(source, dict):
        source = source.get("default")
    if not source:
        return None
    named = {name: text for name, text in fast.special_tokens_map.items() if isinstance(text, str)}
    return ChatTemplate(source, named)
