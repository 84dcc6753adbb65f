"""The events of one streamed answer."""

from __future__ import annotations

from llmkernel.client.generation import Delta, Generation
from llmkernel.gateway.tgi.answers import full_text
from llmkernel.gateway.tgi.schemas import (
    FinishReason,
    StreamDetails,
    StreamEvent,
    Token,
    TopStreamEvent,
)
from llmkernel.gateway.tgi.tokens import Specials, alternatives, spread
from llmkernel.gateway.tgi.validation import Plan


class Streaming:
    """Makes an event of each token.

    The last event also carries the whole text, and whether a token is the last is known
    only when the answer ends. A token that may be the last (the answer may have no more,
    or its text is missing, as for an end token or the end of a stop text) therefore waits
    for what comes next; every other is sent at once.
    """

    def __init__(self, plan: Plan, inputs: str) -> None:
        self.most = 0
        """Tokens that the answer may have; to be set before the first `take`."""
        self._plan = plan
        self._inputs = inputs
        self._index = 0
        self._held: tuple[Token, list[Token]] | None = None
        self._sent: Token | None = None

    async def take(self, delta: Delta, specials: Specials) -> list[StreamEvent]:
        """The events that a portion of the answer sets free."""
        entries = delta.logprobs or []
        if len(entries) == 1 and not self._plan.top_n:
            (entry,) = entries
            if entry.text == delta.text and entry.logprob is not None:  # nearly all of them
                token = Token(entry.token_id, entry.text, entry.logprob, False)
                return self._one(token)
        tokens = await spread(delta.text, entries, specials)
        top = [
            await alternatives(entry, self._plan.top_n, specials) if self._plan.top_n else []
            for entry in entries
        ]
        pairs = list(zip(tokens, top, strict=True))
        events = self._release() if pairs else []
        events += [self._event(token, others) for token, others in pairs[:-1]]
        if pairs:
            plain = tokens[-1].text == entries[-1].text and not tokens[-1].special
            events += self._send_or_hold(*pairs[-1], plain=plain)
        return events

    def last(self, answer: Generation, reason: FinishReason) -> StreamEvent:
        """The event that ends the stream."""
        details = StreamDetails(
            finish_reason=reason,
            generated_tokens=len(answer.token_ids),
            seed=self._plan.seed,
            input_length=answer.usage.prompt_tokens,
        )
        if self._held is None:  # it ended without a word, after a token like any other
            before = self._sent
            self._held = Token(before.id if before else 0, "", 0.0, True), []
        token, others = self._held
        text = full_text(answer.text, self._plan, self._inputs)
        return self._event(token, others, text, details if self._plan.details else None)

    def _one(self, token: Token) -> list[StreamEvent]:
        return [*self._release(), *self._send_or_hold(token, [], plain=True)]

    def _send_or_hold(self, token: Token, others: list[Token], *, plain: bool) -> list[StreamEvent]:
        if plain and self._index + 1 < self.most:
            return [self._event(token, others)]
        self._held = token, others
        return []

    def _release(self) -> list[StreamEvent]:
        held, self._held = self._held, None
        return [self._event(*held)] if held is not None else []

    def _event(
        self,
        token: Token,
        others: list[Token],
        text: str | None = None,
        details: StreamDetails | None = None,
    ) -> StreamEvent:
        self._index += 1
        self._sent = token
        if self._plan.top_n:
            return TopStreamEvent(self._index, token, text, details, others)
        return StreamEvent(self._index, token, text, details)
