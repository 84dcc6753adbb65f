"""Tokens one by one, whatever portions their texts came in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from llmkernel.client import AsyncClient
from llmkernel.errors import LLMKernelError
from llmkernel.gateway.tgi.schemas import SimpleToken, Token
from llmkernel.protocol import TokenLogprob

_MOST_KNOWN = 4096
_WINDOW = 8
"""Characters that tokens without a text of their own may stand for."""


class Specials:
    """Which tokens of one model are special: they stand for no text of an answer."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client
        self._known: dict[int, bool] = {}

    async def holds(self, token_id: int) -> bool:
        """Ask the worker, once for each token. Of one that cannot answer it is plain.

        A worker that stops takes no questions, or has left when its last tokens are here; the
        answer that it has given is no worse for it.
        """
        known = self._known.get(token_id)
        if known is None:
            try:
                known = await self._ask(token_id)
            except LLMKernelError:
                return False
            if len(self._known) < _MOST_KNOWN:
                self._known[token_id] = known
        return known

    async def _ask(self, token_id: int) -> bool:
        shown = await self._client.detokenize([token_id], skip_special_tokens=True)
        whole = await self._client.detokenize([token_id], skip_special_tokens=False)
        return not shown and bool(whole)


async def spread(text: str, entries: Sequence[TokenLogprob], specials: Specials) -> list[Token]:
    """A portion of text over its tokens, so that the texts of plain tokens add up to it.

    A character of several tokens comes with the last of them; what a stop text cut off
    leaves its tokens empty. Special tokens have their names.
    """
    tokens = []
    left = text
    for number, entry in enumerate(entries):
        last = number == len(entries) - 1
        own = entry.text
        if own and left.startswith(own) and not (last and left != own):
            taken, special = own, False
        else:
            special = not (own and own in left) and await specials.holds(entry.token_id)
            taken = left if last else ""
            if special and not taken:
                tokens.append(Token(entry.token_id, own, _logprob(entry), True))
                continue
        left = left[len(taken) :]
        tokens.append(Token(entry.token_id, taken, _logprob(entry), False))
    return tokens


async def alternatives(entry: TokenLogprob, count: int, specials: Specials) -> list[Token]:
    """The likeliest tokens at one place."""
    return [
        Token(
            top.token_id,
            top.text,
            top.logprob,
            await _looks_special(top.text, top.token_id, specials),
        )
        for top in entry.top[:count]
    ]


def places(text: str, ids: Sequence[int], texts: Sequence[str]) -> Iterator[SimpleToken]:
    """Where in `text` each token is; what the tokenizer added is nowhere."""
    waiting: list[int] = []
    at = 0
    found = False
    for token_id, own in zip(ids, texts, strict=True):
        start = _begin(text, own, at) if own else -1
        if start < 0 or (start > at and not waiting):
            waiting.append(token_id)  # part of a character, or added
            continue
        yield from _settle(waiting, text, at, start)
        at = start + len(own if text.startswith(own, start) else own.lstrip(" "))
        found = True
        yield SimpleToken(token_id, text[start:at], start, at)
    # a last character of several tokens; of a longer rest nobody knows where they are
    known = found and len(text) - at <= _WINDOW
    yield from _settle(waiting, text, at, len(text) if known else at)


def _settle(waiting: list[int], text: str, at: int, until: int) -> Iterator[SimpleToken]:
    between = text[at:until]
    for token_id in waiting:
        yield SimpleToken(token_id, between, at, until)
    waiting.clear()


def _begin(text: str, own: str, at: int) -> int:
    if text.startswith(own, at):
        return at
    bare = own.lstrip(" ")  # a tokenizer may put a space before the first word
    if bare and text.startswith(bare, at):
        return at
    return text.find(own, at, at + _WINDOW + len(own))


async def _looks_special(text: str, token_id: int, specials: Specials) -> bool:
    odd = not text or (text[0] in "<[" and text[-1] in ">]")
    return odd and await specials.holds(token_id)


def _logprob(entry: TokenLogprob) -> float:
    return 0.0 if entry.logprob is None else entry.logprob
