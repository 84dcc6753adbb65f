"""Who runs in the next step.

Every running decode row comes first. Then sequences are admitted from the queues,
round robin between clients; each is given the blocks of all its tokens at once, so
that a prompt that was begun gets on. The token budget is for prefill chunks, and is
larger where no decode row would have to wait for them: half of it for the oldest prompt, so that a long one gets on; the rest for the others, those
that were passed over `AGED` times first, else the shortest remainder, so that a
short one need not wait for a long one. Out of blocks, the youngest running
sequence gives its blocks back and recomputes later; the oldest is never
preempted by others, so something always finishes.
"""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Callable

from llmkernel.worker.blocks import BlockPool
from llmkernel.worker.sequence import Request, Sequence
from llmkernel.worker.step import GraphRoom, Row, StepBatch

AGED = 16
"""Steps a prefill may be passed over before it goes first."""
PREFILLS = 32
"""Prompts that are computed side by side: each one's turn comes in AGED + PREFILLS steps."""
SCORED_CHUNK = 64
"""Prompt tokens a step of a request that wants prompt_logprobs: their logits are all kept."""
SOON = 4
"""Steps for which the running sequences have blocks before another is admitted. Measured: one step
in a hundred more, and a third to a twentieth of the preemptions."""
GRAPHS = 3
"""Steps in a row that are launched as graphs before one that is launched by hand is as quick."""
CALM_STEPS = 8
"""Steps without admissions after the device was out of memory."""


class Scheduler:
    """Queues, slots and blocks. Not thread-safe: the engine's thread owns it.

    Chunks have at most `max_batch_tokens` tokens together in a step with decode rows,
    `max_prefill_tokens` (None is the same) in one without. What is left of prompts is cut to
    `graph_room` where few such steps are enough.
    `on_release(slot)` is called when a slot becomes free. `running` is in the order of
    admission; `waiting` counts the sequences that are not running,
    `step` the plans made so far.
    """

    def __init__(
        self,
        blocks: BlockPool,
        *,
        max_concurrent: int,
        max_batch_tokens: int,
        max_prefill_tokens: int | None = None,
        graph_room: GraphRoom | None = None,
        on_release: Callable[[int], None] = lambda _slot: None,
    ) -> None:
        self.blocks = blocks
        self.running: list[Sequence] = []
        self.preempted: deque[Sequence] = deque()
        self.queues: OrderedDict[str, deque[Sequence]] = OrderedDict()
        self.waiting = 0
        self.preemptions = 0
        self.step = 0
        self._calm = 0
        self.free_slots = list(reversed(range(max_concurrent)))
        self._max_batch_tokens = max_batch_tokens
        self._max_prefill_tokens = max_prefill_tokens or max_batch_tokens
        self._graph_room = graph_room
        self._on_release = on_release

    # What the engine tells -----------------------------------------------------------

    def add(self, request: Request) -> None:
        """Queue all sequences of a request."""
        queue = self.queues.setdefault(request.client, deque())
        queue.extend(request.sequences)
        self.waiting += len(request.sequences)

    def remove(self, sequence: Sequence) -> None:
        """Forget a sequence that ended; its blocks and its slot are free at once."""
        if sequence.slot >= 0:
            self.running.remove(sequence)
            self._give_back(sequence)
        else:
            self._dequeue(sequence)

    def pause(self, sequence: Sequence) -> None:
        """Do not run it until `resume`; it keeps what it has while nobody needs that."""
        sequence.paused = True

    def resume(self, sequence: Sequence) -> None:
        """Run it again; the time of its pause is no time of waiting."""
        sequence.paused = False
        sequence.last_step = self.step

    def preempt(self, sequence: Sequence) -> None:
        """Take back blocks and slot; the sequence computes them again later, before others."""
        self.preemptions += 1
        self.running.remove(sequence)
        self._give_back(sequence)
        sequence.computed = 0
        self.preempted.appendleft(sequence)
        self.waiting += 1

    def landed(self, row: Row) -> None:
        """A row was read back, or will never be."""
        row.sequence.in_flight -= row.samples
        row.sequence.rows_in_flight -= 1

    def rewind(self, row: Row) -> None:
        """Compute a row again that failed; the sequence keeps its blocks and its slot.

        Nothing of it may be in flight: the runner's state of the slot is made anew.
        """
        assert row.sequence.rows_in_flight == 0, "a row was rewound with another behind it"
        row.sequence.computed = min(row.sequence.computed, row.start)
        self._on_release(row.sequence.slot)

    def calm_down(self) -> None:
        """Admit nothing for some steps, unless nothing else could run."""
        self._calm = CALM_STEPS

    def give_up_large_steps(self, batch: StepBatch) -> bool:
        """Whether a step was larger than steps with decode rows may be; none will be any more."""
        large = sum(row.count for row in batch.rows if _is_chunk(row)) > self._max_batch_tokens
        if large:
            self._max_prefill_tokens = self._max_batch_tokens
        return large

    def youngest(self, sequences: list[Sequence], count: int) -> list[Sequence]:
        """The `count` of these running sequences that were admitted last, youngest first."""
        chosen = set(map(id, sequences))
        return [s for s in reversed(self.running) if id(s) in chosen][:count]

    def remember(self, sequence: Sequence, computed: int) -> None:
        """Let the blocks be found whose `computed` tokens are written and read back."""
        size = self.blocks.block_size
        full = min(computed, len(sequence.token_ids)) // size
        if full <= sequence.registered or not self.blocks.prefix_cache:
            return
        tokens, digests = sequence.token_ids, sequence.digests
        self.blocks.chain(digests, sequence.request.salt, tokens, full)
        for index in range(sequence.registered, full):
            part = tokens[index * size : (index + 1) * size]
            self.blocks.register(sequence.blocks[index], digests[index], part)
        sequence.registered = full

    # The plan ------------------------------------------------------------------------

    def schedule(self) -> StepBatch | None:
        """The next step, or None if nothing can run."""
        self.step += 1
        rows: list[Row] = []
        self._decode(rows)
        decoding = len(rows)
        if self.waiting:
            self._admit(rows)
        self._prefill(rows)
        if len(rows) > decoding:
            rows.sort(key=_is_chunk)
        return StepBatch(rows) if rows else None

    def can_run(self, sequence: Sequence) -> bool:
        """Whether it has tokens to compute and all it needs for the next of them."""
        return (
            sequence.remaining > 0
            and self._wants(sequence)
            and len(sequence.blocks) * self.blocks.block_size > sequence.computed
        )

    def _wants(self, sequence: Sequence) -> bool:
        """Whether it runs, is read and is not complete. The last token may be on its way."""
        return (
            sequence.slot >= 0
            and not sequence.paused
            and sequence.generated < max(sequence.request.max_tokens, 1)
        )

    def _decode(self, rows: list[Row]) -> None:
        for sequence in list(self.running):
            if sequence.remaining == 1 and self._wants(sequence):
                self._row(rows, sequence, 1)

    def _admit(self, rows: list[Row]) -> None:
        if self._calm and (rows or any(map(self.can_run, self.running))):
            self._calm -= 1
            return
        prefilling = sum(s.remaining > 1 and not s.paused for s in self.running)
        while prefilling < PREFILLS and (sequence := self._next()) is not None:
            while not self._take_in(sequence):
                if (paused := self._youngest_paused()) is None:
                    return
                self.preempt(paused)
            prefilling += 1

    def _prefill(self, rows: list[Row]) -> None:
        """Share the budget: half of it for the oldest prompt, the rest for the others."""
        pending = [s for s in self.running if s.last_step != self.step and self.can_run(s)]
        if not pending:
            return
        oldest, others = pending[0], pending[1:]
        others.sort(key=self._urgency)
        budget = self._budget(len(rows), pending)
        kept = min(oldest.remaining, budget // 2)
        for sequence in others:
            budget -= self._row(rows, sequence, budget - kept)
        self._row(rows, oldest, budget)

    def _budget(self, decoding: int, prompts: list[Sequence]) -> int:
        """Tokens that the prompts may have in a step with so many decode rows."""
        most = self._max_batch_tokens if decoding else self._max_prefill_tokens
        if self._graph_room is None:
            return most
        room, left = self._graph_room.tokens - decoding, sum(s.remaining for s in prompts)
        read = sum(min(s.remaining, room) * s.length for s in prompts)
        if room < 1 or left > GRAPHS * room or read > self._graph_room.read:
            return most
        return min(most, room)

    def _urgency(self, sequence: Sequence) -> tuple[int, int]:
        waited = self.step - sequence.last_step
        return (0, -waited) if waited > AGED else (1, sequence.remaining)

    def _row(self, rows: list[Row], sequence: Sequence, budget: int) -> int:
        """Add a row of at most `budget` tokens; how many it took."""
        request, start, remaining = sequence.request, sequence.computed, sequence.remaining
        count = min(remaining, budget)
        if request.params.prompt_logprobs is not None:
            count = min(count, SCORED_CHUNK)
        if count <= 0 or not self._reserve(sequence, start + count):
            return 0
        samples = count == remaining and request.max_tokens > 0
        rows.append(Row(sequence, start, count, samples))
        sequence.last_step = self.step
        sequence.computed = start + count
        sequence.in_flight += samples
        sequence.rows_in_flight += 1
        return count

    # Blocks and slots ----------------------------------------------------------------

    def _reserve(self, sequence: Sequence, tokens: int) -> bool:
        """Own the blocks for `tokens` tokens, at the cost of younger sequences if need be."""
        needed = self.blocks.blocks_for(tokens)
        while (missing := needed - len(sequence.blocks)) > 0:
            if (taken := self.blocks.allocate(missing)) is not None:
                sequence.blocks += taken
            elif (victim := self._victim(sequence)) is not None:
                self.preempt(victim)
            else:
                return False
        return True

    def _victim(self, sequence: Sequence) -> Sequence | None:
        """Whom to preempt for `sequence`: a paused one, else the youngest of those after it.

        Never one that is in the step already.
        """
        if (paused := self._youngest_paused()) is not None:
            return paused
        for other in reversed(self.running):
            if other is sequence:
                break
            if other.last_step != self.step:
                return other
        return None

    def _youngest_paused(self) -> Sequence | None:
        return next((s for s in reversed(self.running) if s.paused), None)

    def _next(self) -> Sequence | None:
        """The next sequence to admit; it stays where it waits."""
        for sequence in self.preempted:
            if not sequence.paused:
                return sequence if sequence.rows_in_flight == 0 else None
        for queue in self.queues.values():
            held_up = None
            for sequence in queue:
                if sequence.paused or sequence.request is held_up:
                    continue
                if _may_start(sequence):
                    return sequence
                held_up = sequence.request
        return None

    def _take_in(self, sequence: Sequence) -> bool:
        """Give a sequence a slot and the blocks of all its tokens; False if there is no room."""
        if not self.free_slots or not self.blocks.free:
            return False
        shared = self._shared(sequence)
        revived = sum(map(self.blocks.is_free, shared))
        tokens = min(sequence.length + 1, sequence.longest)
        fresh = self.blocks.blocks_for(tokens) - len(shared)
        if fresh + revived + self._growing() > self.blocks.free:
            return False
        self._dequeue(sequence)
        if sequence.request.client in self.queues:
            self.queues.move_to_end(sequence.request.client)
        self.blocks.share(shared)
        taken = self.blocks.allocate(fresh)
        assert taken is not None, "there was room"
        sequence.blocks = shared + taken
        sequence.computed = len(shared) * self.blocks.block_size
        sequence.registered = len(shared)
        sequence.slot = self.free_slots.pop()
        sequence.last_step = self.step - 1
        self.running.append(sequence)
        request = sequence.request
        if not request.admitted:
            request.admitted = time.monotonic()
            request.first_step = self.step
            request.cached_tokens = sequence.computed
        return True

    def _growing(self) -> int:
        """Blocks that running sequences will want soon: whoever is admitted is to keep its own."""
        size = self.blocks.block_size
        return sum(
            not s.paused and len(s.blocks) * size < min(s.computed + SOON, s.longest)
            for s in self.running
        )

    def _shared(self, sequence: Sequence) -> list[int]:
        """Blocks that already hold a prefix; the last token is always computed again."""
        request, size = sequence.request, self.blocks.block_size
        limit = (sequence.length - 1) // size
        if request.params.prompt_logprobs is not None and sequence.index == 0:
            limit = min(limit, len(request.prompt_logprobs) // size)  # the rest is to be scored
        found = self.blocks.lookup(sequence.digests, request.salt, sequence.token_ids, limit)
        source = _source(sequence)
        if source is not None:
            prompt = min(source.computed, sequence.output_start - 1) // size
            found = max(found, source.blocks[:prompt], key=len)
        return found

    def _dequeue(self, sequence: Sequence) -> None:
        """Take it out of where it waits, if it does."""
        client = sequence.request.client
        queue = self.queues.get(client)
        if sequence in self.preempted:
            self.preempted.remove(sequence)
        elif queue is not None and sequence in queue:
            queue.remove(sequence)
            if not queue:
                del self.queues[client]
        else:
            return
        self.waiting -= 1

    def _give_back(self, sequence: Sequence) -> None:
        self.blocks.release(sequence.blocks)
        sequence.blocks = []
        self.free_slots.append(sequence.slot)
        self._on_release(sequence.slot)
        sequence.slot = -1
        sequence.registered = 0


def _is_chunk(row: Row) -> bool:
    return row.count > 1


def _source(sequence: Sequence) -> Sequence | None:
    """The running sibling that is furthest with their prompt."""
    siblings = sequence.request.sequences
    if len(siblings) == 1:
        return None
    running = (s for s in siblings if s is not sequence and s.slot >= 0)
    return max(running, key=lambda s: min(s.computed, s.output_start), default=None)


def _may_start(sequence: Sequence) -> bool:
    """Whether no sibling is computing their prompt: once it is done, its blocks can be shared."""
    source = _source(sequence)
    return source is None or source.computed >= source.output_start
