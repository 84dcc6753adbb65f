"""Bodies as they come over the wire, and answers as a worker gives them, for tests without one."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

from llmkernel.client.generation import Collector, Delta, Generation, generation
from llmkernel.gateway.bodies import decode
from llmkernel.protocol import Output, StreamDelta, Timings, TokenLogprob, TopToken, Usage


def read(kind: type, **fields: Any) -> Any:
    """A body of these fields, read as its route reads it."""
    return decode(json.dumps(fields).encode(), kind)


def token(text: str, logprob: float | None = -0.5, *top: tuple[str, float]) -> TokenLogprob:
    alternatives = [TopToken(token_id=2, text=word, logprob=value) for word, value in top]
    return TokenLogprob(token_id=1, text=text, logprob=logprob, top=alternatives)


def answered(*outputs: Output, usage: Usage | None = None, **more: Any) -> Generation:
    """What the client returns for these outputs."""
    counted = usage or Usage(prompt_tokens=7, cached_tokens=3, completion_tokens=5)
    return generation(list(outputs), counted, Timings(prefill=0.25, decode=0.5), **more)


def said(text: str = "hello", **more: Any) -> Generation:
    """One answer of this text."""
    return answered(Output(text=text, token_ids=[1], **more))


@st.composite
def streamed(draw: st.DrawFn, most: int = 3) -> tuple[list[Delta], Generation]:
    """The deltas of an answer of several samples, and the whole that the client makes of them."""
    count, scored = draw(st.integers(1, most)), draw(st.booleans())
    later = draw(st.lists(st.integers(0, count - 1), max_size=12))
    collector, deltas = Collector(), []
    for seq, index in enumerate([*range(count), *later]):
        text = draw(st.text(max_size=5))
        # a token that is part of a character has no text yet, and its score all the same
        letters = list(text) or ["\N{REPLACEMENT CHARACTER}"]
        entries = [token(letter, -float(seq)) for letter in letters] if scored else None
        delta = StreamDelta(id=1, seq=seq, index=index, text=text, token_ids=[1], logprobs=entries)
        deltas.append(collector.add(delta))
    ends = [
        Output(index=index, finish_reason=draw(st.sampled_from(["stop", "length"])))
        for index in range(count)
    ]
    usage = Usage(prompt_tokens=9, cached_tokens=4, completion_tokens=len(deltas))
    return deltas, generation(collector.outputs(ends), usage, Timings())
