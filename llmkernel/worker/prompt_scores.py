"""Log-probabilities of prompt tokens, for requests that ask for them.

The logits of a long prompt would be larger than the model, so they are made and
dropped a slice at a time.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from llmkernel.worker.sampler import score
from llmkernel.worker.sequence import Candidate, Sampled
from llmkernel.worker.step import Row

SCORED_AT_ONCE = 64
"""Prompt positions whose logits exist at the same time."""


class PromptScores(NamedTuple):
    """One entry a scored position, in the order of the rows; `counts` says how many each row has.

    `targets` are the prompt tokens, `logprob` [P] theirs, `top_ids` and `top_logprobs`
    [P, N] the likeliest tokens by falling log-probability.
    """

    counts: list[int]
    targets: list[int]
    logprob: Tensor
    top_ids: Tensor
    top_logprobs: Tensor


def score_prompts(
    hidden: Tensor, head: Callable[[Tensor], Tensor], rows: list[Row]
) -> PromptScores | None:
    """Score what a step computed: `hidden` [tokens, hidden_size] of `rows`, packed in order.

    Stays on the device; None where nobody asked.
    """
    if all(row.sequence.request.params.prompt_logprobs is None for row in rows):
        return None
    wanted = [_scored_positions(row) for row in rows]
    if not any(wanted):
        return None
    indices: list[int] = []
    targets: list[int] = []
    first = 0
    for row, positions in zip(rows, wanted, strict=True):
        indices += [first + position - row.start for position in positions]
        targets += [row.sequence.token_ids[position + 1] for position in positions]
        first += row.count
    where = torch.tensor(indices, device=hidden.device)
    tokens = torch.tensor(targets, device=hidden.device)
    parts = []
    for begin in range(0, len(indices), SCORED_AT_ONCE):
        some = slice(begin, begin + SCORED_AT_ONCE)
        parts.append(score(head(hidden.index_select(0, where[some])), tokens[some]))
    columns = (torch.cat(column) for column in zip(*parts, strict=True))
    return PromptScores([len(positions) for positions in wanted], targets, *columns)


def prompt_logprobs(rows: list[Row], scores: PromptScores | None) -> list[list[Sampled]]:
    """Plain data of scores that lie on the host: for each row as many as it has, top-n cut."""
    if scores is None:
        return [[] for _ in rows]
    columns = zip(
        scores.targets,
        scores.logprob.tolist(),
        scores.top_ids.tolist(),
        scores.top_logprobs.tolist(),
        strict=True,
    )
    result = []
    for row, count in zip(rows, scores.counts, strict=True):
        top = row.sequence.request.params.prompt_logprobs or 0
        result.append([_scored(*entry, top) for entry in itertools.islice(columns, count)])
    return result


def _scored_positions(row: Row) -> range:
    """Positions of the chunk whose next token is a prompt token that has to be scored."""
    sequence = row.sequence
    if sequence.request.params.prompt_logprobs is None:
        return range(0)
    return range(row.start, min(row.start + row.count, sequence.output_start - 1))


def _scored(target: int, logprob: float, ids: list[int], values: list[float], top: int) -> Sampled:
    best = (Candidate(*pair) for pair in zip(ids[:top], values[:top], strict=True))
    return Sampled(target, logprob, tuple(best))
