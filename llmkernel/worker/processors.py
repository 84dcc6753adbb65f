"""What sampling parameters do to scores, one pure function each.

Scores are float32 [R, V] and are changed in place; parameters are [R, 1] tensors
on the same device. A row's result depends on that row alone, and -inf stands for
a token that cannot be picked.
"""

from __future__ import annotations

import torch

NEVER = float("-inf")


def penalise(
    scores: torch.Tensor,
    prompt: torch.Tensor,
    counts: torch.Tensor,
    repetition: torch.Tensor,
    frequency: torch.Tensor,
    presence: torch.Tensor,
) -> None:
    """Lower what was seen. `prompt` bool [R, V], `counts` int32 [R, V] of generated tokens.

    Repetition (Keskar et al. 2019) looks at prompt and answer, the other two at the
    answer only. Values 1, 0 and 0 leave a row bit for bit as it is.
    """
    seen = prompt | (counts > 0)
    lowered = torch.where(scores > 0, scores / repetition, scores * repetition)
    scores.copy_(torch.where(seen, lowered, scores))
    scores.sub_(counts * frequency).sub_((counts > 0) * presence)


def keep_typical(scores: torch.Tensor, mass: torch.Tensor) -> None:
    """Keep the tokens whose surprise is nearest the entropy, up to `mass` (Meister et al. 2022)."""
    logs = torch.log_softmax(scores, -1)
    entropy = -torch.special.xlogy(logs.exp(), logs.exp()).sum(-1, keepdim=True)
    deviation = (-logs - entropy).abs_()
    order = deviation.sort(dim=-1, stable=True).indices
    _keep_leading(scores, order, logs.exp_().gather(-1, order), mass)


def keep_top_k(scores: torch.Tensor, k: torch.Tensor, largest: int) -> None:
    """Keep the `k` highest scores and those equal to the last of them.

    `largest` is an upper bound of `k` that the host knows, at most V.
    """
    leading = scores.topk(largest, -1).values
    scores.masked_fill_(scores < leading.gather(-1, k.to(torch.int64) - 1), NEVER)


def keep_top_p(scores: torch.Tensor, mass: torch.Tensor) -> None:
    """Keep the smallest set of likeliest tokens that reaches `mass`; of equals the lower ids."""
    ranked, order = scores.sort(dim=-1, descending=True, stable=True)
    _keep_leading(scores, order, torch.softmax(ranked, -1), mass)


def keep_min_p(scores: torch.Tensor, share: torch.Tensor) -> None:
    """Keep tokens at least `share` times as likely as the likeliest."""
    floor = scores.amax(-1, keepdim=True) + share.log()
    scores.masked_fill_(scores < floor, NEVER)


def _keep_leading(
    scores: torch.Tensor, order: torch.Tensor, probabilities: torch.Tensor, mass: torch.Tensor
) -> None:
    # CUDA would add up 10^5 float32 numbers in float32, with an error that is seen at p = 0.999
    before = probabilities.cumsum(-1, dtype=torch.float64) - probabilities
    drop = before >= mass  # never the first: nothing is before it
    scores.masked_fill_(torch.empty_like(drop).scatter_(-1, order, drop), NEVER)
