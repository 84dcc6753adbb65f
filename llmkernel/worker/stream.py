"""One request on the front's side: its answers, its credit, its terminal message."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from llmkernel import protocol
from llmkernel.errors import LLMKernelError
from llmkernel.worker.answer import Added, Answer, logprob_entry
from llmkernel.worker.peers import Peer
from llmkernel.worker.sequence import EndEvent, EngineEvent, Request
from llmkernel.worker.text import Tokenizer

Terminal = protocol.Finished | protocol.Cancelled | protocol.Failed


class EngineLike(Protocol):
    """What the front needs of an engine. All methods may be called from any thread."""

    def submit(self, request: Request) -> None:
        """Take a request; exactly one EndEvent will come for each of its answers."""

    def cancel(self, key: int) -> None:
        """End every unfinished answer as cancelled; unknown keys are no error."""

    def finish(self, key: int, index: int) -> None:
        """End one answer: the text it was to stop at has come."""

    def pause(self, key: int) -> None:
        """Keep a request's blocks and do not run it."""

    def resume(self, key: int) -> None:
        """Run it again."""

    def load(self) -> protocol.Load:
        """What it is doing now."""

    def steps(self) -> protocol.StepReport:
        """How its steps went."""

    def check_fits(self, prompt_tokens: int, max_tokens: int | None, width: int) -> int:
        """The limit of new tokens; raises PromptTooLong for what could never run."""


@dataclass(slots=True)
class Window:
    """Credit of one stream: tokens that its reader still has room for."""

    room: int
    most: int = protocol.CREDIT_WINDOW
    empty_since: float = 0.0
    """When it ran out, on the monotonic clock; 0 while there is room."""

    def __post_init__(self) -> None:
        self.room = max(0, min(self.room, self.most))

    def take(self, tokens: int) -> bool:
        """Use up room; True if that was the last of it."""
        self.room -= tokens
        if self.room > 0 or self.empty_since:
            return False
        self.empty_since = time.monotonic()
        return True

    def give(self, tokens: int) -> bool:
        """More room; True if there was none before."""
        self.room = min(self.room + max(tokens, 0), self.most)
        if self.room <= 0 or not self.empty_since:
            return False
        self.empty_since = 0.0
        return True


class Stream:
    """A request that the engine has, from its submission to its terminal message.

    `take` is called for each event of the engine, `deltas` once for all events of a
    step, and `terminal` once when it is `complete` or is cut.
    """

    __slots__ = (
        "_answers", "_engine", "_error", "_seq", "_submit", "_tokenizer",
        "cancelled", "live", "open", "peer", "request", "window",
    )  # fmt: skip

    def __init__(
        self,
        peer: Peer,
        submit: protocol.Submit,
        request: Request,
        engine: EngineLike,
        tokenizer: Tokenizer,
    ) -> None:
        params = submit.params
        self.peer = peer
        self.request = request
        self.cancelled = False
        self.live = submit.stream and params.width == params.n
        """Whether deltas are sent."""
        self.window = Window(submit.credit)
        self._submit = submit
        self._engine = engine
        self._tokenizer = tokenizer
        self._seq = 0
        self._error: LLMKernelError | None = None
        eager = self.live or bool(params.stop)
        self._answers = [
            Answer(index, params, tokenizer, eager=eager) for index in range(params.width)
        ]
        self.open = params.width
        """Answers that have not ended."""

    @property
    def id(self) -> int:
        """The client's name for the request."""
        return self._submit.id

    @property
    def complete(self) -> bool:
        """Whether every answer has ended."""
        return self.open == 0

    def begin(self) -> None:
        """Hand the request to the engine; with no credit at all it waits."""
        self._engine.submit(self.request)
        if self.live and self.window.take(0):
            self._engine.pause(self.request.key)

    def take(self, event: EngineEvent) -> None:
        """Note what the engine did."""
        self._answers[event.answer].take(event)
        if isinstance(event, EndEvent) and event.error is not None and self._error is None:
            self._error = event.error
            self.cancel()

    def deltas(self) -> list[protocol.StreamDelta]:
        """What the events since the last call added, as parts of a Deltas message."""
        parts = []
        tokens = 0
        for answer in self._answers:
            new = self._advance(answer)
            if self.live and (new.text or new.token_ids):
                parts.append(self._delta(answer.index, new))
                tokens += len(new.token_ids)
        if tokens and self.window.take(tokens) and not self.complete:
            self._engine.pause(self.request.key)
        return parts

    def grant(self, tokens: int) -> None:
        """The reader has room for more."""
        if self.live and self.window.give(tokens):
            self._engine.resume(self.request.key)

    def cancel(self) -> None:
        """Ask the engine to end what is left; the events of that end will come."""
        if not self.cancelled:
            self.cancelled = True
            self._engine.cancel(self.request.key)

    def terminal(self, error: LLMKernelError | None = None) -> Terminal:
        """The last message: what `error` or the engine says happened."""
        error = error or self._error
        common = {"id": self.id, "usage": self._usage(), "timings": self._timings()}
        outputs = self._outputs()
        if error is not None:
            return protocol.Failed(**common, outputs=outputs, **protocol.wire_error(error))  # type: ignore[arg-type]
        if any(output.finish_reason == "cancelled" for output in outputs):
            return protocol.Cancelled(**common, outputs=outputs)  # type: ignore[arg-type]
        return protocol.Finished(**common, outputs=outputs, **self._prompt())  # type: ignore[arg-type]

    def _advance(self, answer: Answer) -> Added:
        was_over = answer.over
        new = answer.advance()
        if answer.over and not was_over:
            self.open -= 1
            if answer.found_stop:
                self._engine.finish(self.request.key, answer.index)
        return new

    def _delta(self, index: int, new: Added) -> protocol.StreamDelta:
        seq = self._seq
        self._seq += 1
        return protocol.StreamDelta(
            id=self._submit.id,
            seq=seq,
            index=index,
            text=new.text,
            token_ids=new.token_ids,
            logprobs=new.logprobs,
        )

    def _outputs(self) -> list[protocol.Output]:
        outputs = [answer.output(content=not self.live) for answer in self._answers]
        n = self._submit.params.n
        if len(outputs) > n:
            outputs.sort(key=_goodness, reverse=True)
            outputs = [
                msgspec.structs.replace(output, index=index)
                for index, output in enumerate(outputs[:n])
            ]
        return outputs

    def _usage(self) -> protocol.Usage:
        return protocol.Usage(
            prompt_tokens=len(self.request.prompt),
            cached_tokens=self.request.cached_tokens,
            completion_tokens=sum(len(answer.token_ids) for answer in self._answers),
        )

    def _timings(self) -> protocol.Timings:
        request = self.request
        end = request.ended or time.monotonic()
        admitted = request.admitted or end
        first = request.first_token or end
        return protocol.Timings(
            queue=max(0.0, admitted - request.arrived),
            prefill=max(0.0, first - admitted),
            decode=max(0.0, end - first),
            first_step=request.first_step,
            last_step=max((s.last_step for s in request.sequences), default=0),
        )

    def _prompt(self) -> dict[str, Any]:
        if self._submit.params.prompt_logprobs is None:
            return {}
        first, text = self.request.prompt[0], self._tokenizer.token_text
        entries = [protocol.TokenLogprob(token_id=first, text=text(first))]
        entries += [logprob_entry(sampled, text) for sampled in self.request.prompt_logprobs]
        return {"prompt_token_ids": list(self.request.prompt), "prompt_logprobs": entries}


def _goodness(output: protocol.Output) -> float:
    return -math.inf if output.mean_logprob is None else output.mean_logprob
