"""From a worker's answer to Text Generation Inference's."""

from __future__ import annotations

import math

from llmkernel.client.generation import Generation
from llmkernel.gateway.tgi.schemas import (
    BestOfSequence,
    Details,
    FinishReason,
    GenerateResponse,
    PrefillToken,
    Token,
)
from llmkernel.gateway.tgi.tokens import Specials, alternatives, spread
from llmkernel.gateway.tgi.validation import Plan


def reason(answer: Generation, full: float) -> FinishReason:
    """Its word for the same end. One of `full` tokens ended for its length, whatever else did."""
    if answer.finish_reason == "length" or len(answer.token_ids) >= full:
        return "length"
    return "eos_token" if answer.stop_reason is None else "stop_sequence"


async def response(
    answer: Generation, plan: Plan, inputs: str, specials: Specials, full: float
) -> GenerateResponse:
    """The best of the answers, with the others in its details."""
    best, *others = sorted(answer.samples, key=_likelihood, reverse=True)
    return GenerateResponse(
        generated_text=full_text(best.text, plan, inputs),
        details=await _details(best, others, answer, plan, inputs, specials, full)
        if plan.details
        else None,
    )


def full_text(text: str, plan: Plan, inputs: str) -> str:
    """The answer, after its prompt where that was asked for."""
    return inputs + text if plan.full_text else text


async def _details(
    best: Generation,
    others: list[Generation],
    answer: Generation,
    plan: Plan,
    inputs: str,
    specials: Specials,
    full: float,
) -> Details:
    prefill = _prefill(answer) if plan.prefill else []
    return Details(
        finish_reason=reason(best, full),
        generated_tokens=len(best.token_ids),
        seed=plan.seed,
        prefill=prefill,
        tokens=await _tokens(best, specials),
        top_tokens=await _top(best, plan, specials),
        best_of_sequences=[
            BestOfSequence(
                generated_text=full_text(other.text, plan, inputs),
                finish_reason=reason(other, full),
                generated_tokens=len(other.token_ids),
                seed=plan.seed,
                prefill=prefill,
                tokens=await _tokens(other, specials),
                top_tokens=await _top(other, plan, specials),
            )
            for other in others
        ]
        or None,
    )


async def _tokens(answer: Generation, specials: Specials) -> list[Token]:
    return await spread(answer.text, answer.logprobs or [], specials)


async def _top(answer: Generation, plan: Plan, specials: Specials) -> list[list[Token]] | None:
    if not plan.top_n:
        return None
    return [await alternatives(entry, plan.top_n, specials) for entry in answer.logprobs or []]


def _prefill(answer: Generation) -> list[PrefillToken]:
    return [
        PrefillToken(entry.token_id, entry.text, entry.logprob)
        for entry in answer.prompt_logprobs or []
    ]


def _likelihood(answer: Generation) -> float:
    return -math.inf if answer.mean_logprob is None else answer.mean_logprob
