"""Log-probabilities in the four parallel lists of OpenAI's older API."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from llmkernel.gateway.translation.log_probabilities import finite
from llmkernel.protocol import TokenLogprob


class CompletionLogProbabilities(msgspec.Struct):
    """One entry for each token in every list; the first of a text has no probability."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    """The alternatives and the token itself."""
    text_offset: list[int]
    """Where in the text of the choice each token begins, in characters."""


def lists(tokens: Sequence[TokenLogprob], begin: int = 0) -> CompletionLogProbabilities:
    """The lists for tokens whose text begins at `begin`."""
    offsets = []
    for token in tokens:
        offsets.append(begin)
        begin += len(token.text)
    return CompletionLogProbabilities(
        tokens=[token.text for token in tokens],
        token_logprobs=[
            None if token.logprob is None else finite(token.logprob) for token in tokens
        ],
        top_logprobs=[_top(token) for token in tokens],
        text_offset=offsets,
    )


def _top(token: TokenLogprob) -> dict[str, float] | None:
    if token.logprob is None:
        return None
    found = {token.text: finite(token.logprob)}
    for other in token.top:  # two ids may have one text: the likelier stays
        found[other.text] = max(found.get(other.text, finite(None)), finite(other.logprob))
    return found
