"""Logits to tokens, on the device, each row by its own parameters.

Per-sequence state lives in tensors indexed by slot; a step sends one small
tensor to the device and reads nothing back. What a row gets depends on its
logits, its parameters and its draw key only, never on the rows beside it: what
some rows need is done to those rows alone.

Order of work as in `SamplingParams`. A draw is argmax(probability / noise) with
exponential noise, which picks token i with probability p_i (the exponential
race, also known as the Gumbel-max trick).
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Mapping
from collections.abc import Sequence as AbstractSequence
from dataclasses import dataclass
from typing import NamedTuple

import torch

from llmkernel.worker import processors
from llmkernel.worker.greedy import greedy_tokens
from llmkernel.worker.random_draws import draw_key, exponential_noise
from llmkernel.worker.sequence import NO_TOKEN, Candidate, Sampled, Sequence
from llmkernel.worker.slot_tables import SeenTokens, SparseTable, upload
from llmkernel.worker.step import Row

TOP_LOGPROBS = 20
"""Alternatives computed wherever any are asked for: a fixed number, so that ties come out alike."""

_DRAW_GROUPS = ("typical_p", "top_k", "top_p", "min_p")
_PENALTIES = ("repetition_penalty", "frequency_penalty", "presence_penalty")
_COLUMNS = ("temperature", *_DRAW_GROUPS, *_PENALTIES)
_TINY = 1e-30
_EVERY_ROW = slice(None)
_Group = torch.Tensor | slice
_Change = Callable[[torch.Tensor, torch.Tensor], None]


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


class _Needs(NamedTuple):
    """What the host must know of a slot to plan a step; neutral parameters need nothing."""

    draw: bool
    penalties: bool
    bias: bool
    typical_p: bool
    top_k: bool
    top_p: bool
    min_p: bool
    logprob: bool
    least: int
    """min_tokens, where something could end the sequence earlier."""
    k: int
    anything: bool

    @classmethod
    def of(cls, sequence: Sequence, vocab_size: int) -> _Needs:
        """The needs of one request with logits of this width."""
        params = sequence.request.params
        draw = not params.greedy
        penalties = (params.repetition_penalty, params.frequency_penalty, params.presence_penalty)
        top_k = draw and 0 < params.top_k < vocab_size
        penalised = penalties != (1.0, 0.0, 0.0)
        logprob = sequence.request.params.wants_logprob
        anything = draw or penalised or logprob or bool(params.logit_bias or params.min_tokens)
        return cls(
            draw=draw,
            penalties=penalised,
            bias=bool(params.logit_bias),
            typical_p=draw and params.typical_p < 1.0,
            top_k=top_k,
            top_p=draw and params.top_p < 1.0,
            min_p=draw and params.min_p > 0.0,
            logprob=logprob,
            least=params.min_tokens,
            k=params.top_k if top_k else 0,
            anything=anything,
        )


@dataclass(slots=True)
class _Plan:
    """One step on the device. A group that no row is in is absent.

    `_DRAW_GROUPS` index the drawing rows, the other groups all rows. `slots` [rows],
    `keys` [drawing rows, 2].
    """

    slots: torch.Tensor
    keys: torch.Tensor
    largest_k: int
    groups: dict[str, _Group]


_NOBODY = "sampled from a slot that no sequence is attached to"


class Sampler:
    """Picks the next token of each row. Owned by the runner; not thread-safe.

    `vocab_size` is the width of the logits. Device state is for `max_concurrent`
    slots; the large table (seen tokens) exists only once a request needs it.
    """

    def __init__(
        self, vocab_size: int, max_concurrent: int, device: torch.device | str = "cpu"
    ) -> None:
        self.vocab_size = vocab_size
        self.max_concurrent = max_concurrent
        self.device = torch.device(device)
        self._ids = torch.arange(vocab_size, dtype=torch.int32, device=self.device)
        self._needs: list[_Needs | None] = [None] * max_concurrent
        self._asking: set[int] = set()
        """Slots whose needs are more than the likeliest token."""
        self._parameters = torch.zeros(max_concurrent, len(_COLUMNS), device=self.device)
        self._bias = SparseTable(max_concurrent, self.device)
        self._enders = SparseTable(max_concurrent, self.device)
        self._seen: SeenTokens | None = None

    def attach(self, slot: int, sequence: Sequence) -> None:
        """Give `slot` to a sequence whose tokens are all read back (`in_flight` 0).

        Token ids beyond the vocabulary in logit_bias and stop_token_ids are left out
        here (on a GPU they would end the process); refusing them is the front's.
        """
        params = sequence.request.params
        needs = self._needs[slot] = _Needs.of(sequence, self.vocab_size)
        if needs.anything:
            self._asking.add(slot)
        values = [float(getattr(params, name)) for name in _COLUMNS]
        # float32 has no room for the smallest divisors that the bounds allow
        values = [max(value, _TINY) if value > 0 else value for value in values]
        self._parameters[slot] = upload(values, torch.float32, self.device)
        if needs.bias:
            self._bias.set(slot, self._known(params.logit_bias))
        if needs.least:
            enders = {*sequence.request.eos_token_ids, *params.stop_token_ids}
            self._enders.set(slot, self._known(dict.fromkeys(enders, processors.NEVER)))
        if needs.penalties:
            self._remember(slot, sequence)

    def release(self, slot: int) -> None:
        """The slot is free; what it held is overwritten by the next `attach`."""
        self._needs[slot] = None
        self._asking.discard(slot)

    def sample(
        self,
        logits: torch.Tensor,
        rows: AbstractSequence[Row],
        greedy: torch.Tensor | None = None,
    ) -> SamplerOutput:
        """Draw one token a row from `logits` [R, vocab_size], any floating dtype.

        `rows[i]` is the row whose last position gave `logits[i]`; its sequence is
        attached. Enqueues device work and returns without waiting. `logits` are left
        as they are. `greedy` are their `greedy_tokens` where they are known; they are what
        comes back where no row asks for more.
        """
        assert all(self._needs[row.sequence.slot] for row in rows), _NOBODY
        if greedy is None:
            greedy = greedy_tokens(logits)
        plan = self._plan(rows) if self._asking else None
        if plan is None:
            return SamplerOutput(greedy)
        scores = self._adjust(logits, plan)
        likeliest = greedy if scores is logits else greedy_tokens(scores)
        sound = (greedy >= 0) & (likeliest >= 0)
        tokens = torch.where(sound, self._pick(scores, likeliest, plan), NO_TOKEN)
        if self._seen is not None and (group := plan.groups.get("penalties")) is not None:
            self._seen.add(plan.slots[group], tokens[group])
        return _with_logprobs(logits, tokens, plan.groups.get("logprob"))

    def _plan(self, rows: AbstractSequence[Row]) -> _Plan | None:
        """None where every row is greedy and asks for nothing else: then nothing is sent."""
        slots = [row.sequence.slot for row in rows]
        needs = [self._attached(slot) for slot in slots]
        if not any(need.anything for need in needs):
            return None
        members = _members(needs, rows)
        keys = [word for index in members.get("draw", ()) for word in _key(rows[index])]
        flat = [*slots, *keys, *itertools.chain(*members.values())]
        lengths = [len(slots), len(keys), *map(len, members.values())]
        # one transfer a step, whatever the rows need
        parts = torch.split(upload(flat, torch.int64, self.device), lengths)
        groups: dict[str, _Group] = {}
        for (name, member), index in zip(members.items(), parts[2:], strict=True):
            whole = len(members["draw"]) if name in _DRAW_GROUPS else len(rows)
            groups[name] = _EVERY_ROW if len(member) == whole else index
        return _Plan(
            slots=parts[0],
            keys=parts[1].to(torch.int32).view(-1, 2),
            largest_k=max((need.k for need in needs), default=0),
            groups=groups,
        )

    def _attached(self, slot: int) -> _Needs:
        needs = self._needs[slot]
        assert needs is not None, _NOBODY
        return needs

    def _adjust(self, logits: torch.Tensor, plan: _Plan) -> torch.Tensor:
        changes = {
            "penalties": self._penalise,
            "bias": self._bias.add_to,
            "min_tokens": self._enders.add_to,
        }
        if not changes.keys() & plan.groups.keys():
            return logits
        scores = logits.to(torch.float32, copy=True)
        for name, change in changes.items():
            if (group := plan.groups.get(name)) is not None:
                _on_rows(scores, group, change, plan.slots[group])
        return scores

    def _penalise(self, scores: torch.Tensor, slots: torch.Tensor) -> None:
        assert self._seen is not None
        repetition, frequency, presence = (self._column(name, slots) for name in _PENALTIES)
        prompt, counts = self._seen.rows(slots)
        processors.penalise(scores, prompt, counts, repetition, frequency, presence)

    def _pick(self, scores: torch.Tensor, likeliest: torch.Tensor, plan: _Plan) -> torch.Tensor:
        drawing = plan.groups.get("draw")
        if drawing is None:
            return likeliest
        if isinstance(drawing, slice):
            return self._draw(scores, plan, drawing)
        return likeliest.index_copy(0, drawing, self._draw(scores[drawing], plan, drawing))

    def _draw(self, logits: torch.Tensor, plan: _Plan, drawing: _Group) -> torch.Tensor:
        slots = plan.slots[drawing]
        scores = logits.to(torch.float32)
        # the largest becomes 0 first, so that no temperature can overflow
        scores = scores - scores.amax(-1, keepdim=True)
        scores.div_(self._column("temperature", slots))
        steps: dict[str, _Change] = {
            "typical_p": processors.keep_typical,
            "top_k": functools.partial(processors.keep_top_k, largest=plan.largest_k),
            "top_p": processors.keep_top_p,
            "min_p": processors.keep_min_p,
        }
        for name, keep in steps.items():
            if (group := plan.groups.get(name)) is not None:
                _on_rows(scores, group, keep, self._column(name, slots[group]))
        noise = exponential_noise(self._ids, plan.keys)
        return scores.exp_().div_(noise).argmax(-1)

    def _column(self, name: str, slots: torch.Tensor) -> torch.Tensor:
        return self._parameters[slots, _COLUMNS.index(name), None]

    def _remember(self, slot: int, sequence: Sequence) -> None:
        if self._seen is None:
            self._seen = SeenTokens(self.max_concurrent, self.vocab_size, self.device)
        start = sequence.output_start
        self._seen.set(slot, sequence.token_ids[:start], sequence.token_ids[start:])

    def _known(self, pairs: Mapping[int, float]) -> dict[int, float]:
        return {token: value for token, value in pairs.items() if token < self.vocab_size}


def score(
    logits: torch.Tensor, token_ids: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Log-probabilities under `logits` [P, V] in float32.

    Returns those of `token_ids` int64 [P] as [P], and the ids and values of the
    TOP_LOGPROBS likeliest tokens (fewer in a smaller vocabulary) as [P, N] each.
    """
    values = torch.log_softmax(logits, -1, dtype=torch.float32)
    top_values, top_ids = values.topk(min(TOP_LOGPROBS, values.shape[-1]), -1)
    return values.gather(-1, token_ids[:, None])[:, 0], top_ids, top_values


def to_sampled(output: SamplerOutput, rows: AbstractSequence[Row]) -> list[Sampled]:
    """Plain data of an output that lies on the host, cut to what each row asked for."""
    tokens: list[int] = output.tokens.tolist()
    if output.logprob is None or output.top_ids is None or output.top_logprobs is None:
        return [Sampled(token) for token in tokens]
    columns = (output.logprob.tolist(), output.top_ids.tolist(), output.top_logprobs.tolist())
    return [_sampled(*entry) for entry in zip(tokens, *columns, rows, strict=True)]


def _sampled(token: int, logprob: float, ids: list[int], values: list[float], row: Row) -> Sampled:
    if token == NO_TOKEN or not row.sequence.request.params.wants_logprob:
        return Sampled(token)
    count = row.sequence.request.params.logprobs or 0
    top = tuple(Candidate(*pair) for pair in zip(ids[:count], values[:count], strict=True))
    return Sampled(token, logprob, top)


def _with_logprobs(
    logits: torch.Tensor, tokens: torch.Tensor, group: _Group | None
) -> SamplerOutput:
    if group is None:
        return SamplerOutput(tokens)
    found = score(logits[group], tokens[group].clamp_min(0))
    if isinstance(group, slice):
        return SamplerOutput(tokens, *found)
    spread = []
    for part in found:
        whole = part.new_zeros(len(tokens), *part.shape[1:])
        spread.append(whole.index_copy_(0, group, part))
    return SamplerOutput(tokens, *spread)


def _on_rows(
    scores: torch.Tensor,
    group: _Group,
    change: _Change,
    argument: torch.Tensor,
) -> None:
    part = scores[group]
    change(part, argument)
    if not isinstance(group, slice):
        scores.index_copy_(0, group, part)


def _members(needs: list[_Needs], rows: AbstractSequence[Row]) -> dict[str, list[int]]:
    members = {
        name: [i for i, need in enumerate(needs) if getattr(need, name)]
        for name in ("draw", "penalties", "bias", "logprob")
    }
    members["min_tokens"] = [i for i, row in enumerate(rows) if _generated(row) < needs[i].least]
    drawing = [needs[i] for i in members["draw"]]
    members |= {
        name: [i for i, need in enumerate(drawing) if getattr(need, name)] for name in _DRAW_GROUPS
    }
    return {name: group for name, group in members.items() if group}


def _generated(row: Row) -> int:
    return row.start + row.count - row.sequence.output_start


def _key(row: Row) -> tuple[int, int]:
    sequence = row.sequence
    return draw_key(sequence.request.seed, sequence.index, row.start + row.count)
