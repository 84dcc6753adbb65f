"""Rows and sequences as the scheduler would hand them to the sampler."""

from __future__ import annotations

import torch

from llmkernel.params import SamplingParams
from llmkernel.worker.sampler import Sampler, SamplerOutput, to_sampled
from llmkernel.worker.sequence import Request, Sampled, Sequence
from llmkernel.worker.step import Row


def decode_row(
    slot: int = 0,
    prompt: tuple[int, ...] = (1, 2, 3),
    output: tuple[int, ...] = (),
    seed: int = 0,
    index: int = 0,
    eos: frozenset[int] = frozenset(),
    **params: object,
) -> Row:
    """A row that computes the last known token and samples the one after it."""
    request = Request(
        key=slot,
        client="test",
        prompt=prompt,
        params=SamplingParams.build(**params),
        max_tokens=100,
        eos_token_ids=eos,
        seed=seed,
    )
    tokens = [*prompt, *output]
    sequence = Sequence(
        request, index, tokens, computed=len(tokens) - 1, slot=slot, output_start=len(prompt)
    )
    return Row(sequence, len(tokens) - 1, 1, samples=True)


def attached(
    vocab_size: int, rows: list[Row], max_concurrent: int = 64, device: str = "cpu"
) -> Sampler:
    """A sampler that knows these rows."""
    sampler = Sampler(vocab_size, max_concurrent, device)
    for row in rows:
        sampler.attach(row.sequence.slot, row.sequence)
    return sampler


def draw(logits: torch.Tensor, *rows: Row) -> list[int]:
    """One step of a fresh sampler: token ids."""
    return attached(logits.shape[-1], list(rows)).sample(logits, rows).tokens.tolist()


def draw_details(logits: torch.Tensor, *rows: Row) -> list[Sampled]:
    """The same with log-probabilities."""
    output: SamplerOutput = attached(logits.shape[-1], list(rows)).sample(logits, rows)
    return to_sampled(output, rows)


def advance(row: Row) -> Row:
    """The row of the next step while the host has not read this step's token."""
    row.sequence.in_flight += 1
    return Row(row.sequence, row.start + 1, 1, samples=True)
