"""Logits to tokens, on the device, each row by its own parameters.

Per-sequence state lives in tensors indexed by slot; a step sends one small
tensor of slots and draw keys to the device and reads nothing back. What a row
gets depends on its logits, its parameters and its draw key only, never on the
rows beside it.

Order of work as in `SamplingParams`. A draw is argmax(probability / noise) with
exponential noise, which picks token i with probability p_i (the exponential race,
also known as the Gumbel-max trick).
"""

from __future__ import annotations

from collections.abc import Sequence as AbstractSequence
from dataclasses import dataclass

import torch

from llmkernel.worker.random_draws import draw_key, exponential_noise
from llmkernel.worker.sequence import NO_TOKEN, Candidate, Row, Sampled, Sequence

TOP_LOGPROBS = 20
"""Alternatives computed wherever any are asked for: a fixed number, so that ties come out alike."""


@dataclass(slots=True)
class SamplerOutput:
    """One step's draws, on the device. `R` rows as given to `sample`.

    `tokens` int64 [R], NO_TOKEN for a broken row; where some row asked for
    log-probabilities also `logprob` float32 [R], `top_ids` int64 [R, N] and
    `top_logprobs` float32 [R, N], sorted by falling log-probability; rows that did
    not ask hold zeros.
    """

    tokens: torch.Tensor
    logprob: torch.Tensor | None = None
    top_ids: torch.Tensor | None = None
    top_logprobs: torch.Tensor | None = None


class Sampler:
    """Picks the next token of each row. Owned by the runner; not thread-safe.

    `vocab_size` is the width of the logits. Device state for `max_concurrent`
    slots; the large tables (seen tokens) exist only once a request needs them.
    """

    def __init__(
        self, vocab_size: int, max_concurrent: int, device: torch.device | str = "cpu"
    ) -> None:
        self.vocab_size = vocab_size
        self.max_concurrent = max_concurrent
        self.device = torch.device(device)
        self._ids = torch.arange(vocab_size, dtype=torch.int32, device=self.device)
        self._temperature = torch.ones(max_concurrent, device=self.device)

    def attach(self, slot: int, sequence: Sequence) -> None:
        """Give `slot` to a sequence whose tokens are all read back (`in_flight` 0)."""
        self._temperature[slot] = sequence.request.params.temperature

    def release(self, slot: int) -> None:
        """The slot is free; its state is overwritten by the next `attach`."""

    def sample(self, logits: torch.Tensor, rows: AbstractSequence[Row]) -> SamplerOutput:
        """Draw one token a row from `logits` [R, vocab_size], any floating dtype.

        `rows[i]` is the row whose last position gave `logits[i]`; its sequence is
        attached. Enqueues device work and returns without waiting.
        """
        scores = logits.float()
        slots = torch.tensor([row.sequence.slot for row in rows], device=self.device)
        keys = torch.tensor([_key(row) for row in rows], dtype=torch.int32, device=self.device)
        top = scores.amax(-1, keepdim=True)
        temperature = self._temperature[slots, None]
        weights = ((scores - top) / temperature.clamp_min(1e-30)).exp_()
        noise = exponential_noise(self._ids, keys)
        drawn = weights.div_(noise).argmax(-1)
        tokens = torch.where(temperature[:, 0] == 0, scores.argmax(-1), drawn)
        tokens = torch.where(top[:, 0].isfinite(), tokens, NO_TOKEN)
        logprob, ids, values = score(logits, tokens.clamp_min(0))
        return SamplerOutput(tokens, logprob, ids, values)


def score(
    logits: torch.Tensor, token_ids: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Log-probabilities under `logits` [P, V] in float32.

    Returns those of `token_ids` int64 [P] as [P], and the ids and values of the
    TOP_LOGPROBS likeliest tokens (fewer in a smaller vocabulary) as [P, N] each.
    """
    values = torch.log_softmax(logits.float(), -1)
    top_values, top_ids = values.topk(min(TOP_LOGPROBS, values.shape[-1]), -1)
    return values.gather(-1, token_ids[:, None])[:, 0], top_ids, top_values


def to_sampled(output: SamplerOutput, rows: AbstractSequence[Row]) -> list[Sampled]:
    """Plain data of an output that lies on the host, cut to what each row asked for."""
    tokens: list[int] = output.tokens.tolist()
    if output.logprob is None or output.top_ids is None or output.top_logprobs is None:
        return [Sampled(token) for token in tokens]
    columns = zip(
        tokens,
        output.logprob.tolist(),
        output.top_ids.tolist(),
        output.top_logprobs.tolist(),
        rows,
        strict=True,
    )
    return [_sampled(*column) for column in columns]


def _sampled(token: int, logprob: float, ids: list[int], values: list[float], row: Row) -> Sampled:
    if token == NO_TOKEN or not wants_logprob(row.sequence):
        return Sampled(token)
    count = row.sequence.request.params.logprobs or 0
    top = tuple(Candidate(*pair) for pair in zip(ids[:count], values[:count], strict=True))
    return Sampled(token, logprob, top)


def wants_logprob(sequence: Sequence) -> bool:
    """Whether the request asked for it, or best_of needs it to rank answers."""
    params = sequence.request.params
    return params.logprobs is not None or params.width > params.n


def _key(row: Row) -> tuple[int, int]:
    sequence = row.sequence
    return draw_key(sequence.request.seed, sequence.index, row.start + row.count)
