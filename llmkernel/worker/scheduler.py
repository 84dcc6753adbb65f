"""Who runs in the next step.

Every running decode row comes first. Then sequences are admitted from the queues,
round robin between clients. The token budget is for prefill chunks: half of it
for the oldest prompt, so that a long one gets on; the rest for the others, those
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
from llmkernel.worker.sequence import Request, Row, Sequence, StepBatch

AGED = 16
"""Steps a prefill may be passed over before it goes first."""
PREFILLS = 32
"""Prompts that are computed side by side: each one's turn comes in AGED + PREFILLS steps."""
SCORED_CHUNK = 64
"""Prompt tokens a step of a request that wants prompt_logprobs: their logits are all kept."""


class Scheduler:
    """Queues, slots and blocks. Not thread-safe: the engine's thread owns it.

    `on_release(slot)` is called when a slot becomes free.
    """

    def __init__(
        self,
        blocks: BlockPool,
        *,
        max_concurrent: int,
        max_batch_tokens: int,
        on_release: Callable[[int], None] = lambda _slot: None,
    ) -> None:
        self.blocks = blocks
        self.running: list[Sequence] = []
        self.preempted: deque[Sequence] = deque()
        self.queues: OrderedDict[str, deque[Sequence]] = OrderedDict()
        self.preemptions = 0
        self._slots = list(reversed(range(max_concurrent)))
        self._max_batch_tokens = max_batch_tokens
        self._on_release = on_release

    @property
    def waiting(self) -> int:
        """Sequences that are not running."""
        return len(self.preempted) + sum(map(len, self.queues.values()))

    def add(self, request: Request) -> None:
        """Queue all sequences of a request."""
        queue = self.queues.setdefault(request.client, deque())
        queue.extend(request.sequences)

    def remove(self, sequence: Sequence) -> None:
        """Forget a sequence that ended; its blocks and its slot are free at once."""
        if sequence.slot >= 0:
            self.running.remove(sequence)
            self._give_back(sequence)
        elif sequence in self.preempted:
            self.preempted.remove(sequence)
        elif sequence in (queue := self.queues.get(sequence.request.client, deque())):
            queue.remove(sequence)
            if not queue:
                del self.queues[sequence.request.client]

    def schedule(self) -> StepBatch | None:
        """The next step, or None if nothing can run."""
        rows: list[Row] = []
        self._decode(rows)
        self._admit()
        self._prefill(rows)
        self._age(rows)
        return StepBatch(rows) if rows else None

    def _decode(self, rows: list[Row]) -> None:
        for sequence in list(self.running):
            if sequence.remaining == 1 and self._runnable(sequence):
                self._row(rows, sequence, 1)

    def _admit(self) -> None:
        prefilling = sum(s.remaining > 1 for s in self.running)
        while self._slots and prefilling < PREFILLS and (sequence := self._next()) is not None:
            while not self._take_in(sequence):
                if (paused := self._paused_with_blocks()) is None:
                    return
                self.preempt(paused)
            prefilling += 1

    def _prefill(self, rows: list[Row]) -> None:
        """Share the budget: half of it for the oldest prompt, the rest for the others."""
        in_step = {id(row.sequence) for row in rows}
        pending = [s for s in self.running if id(s) not in in_step and self._runnable(s)]
        if not pending:
            return
        oldest, others = pending[0], pending[1:]
        others.sort(key=lambda s: (0, -s.skipped) if s.skipped >= AGED else (1, s.remaining))
        budget = self._max_batch_tokens
        kept = min(oldest.remaining, budget // 2)
        for sequence in others:
            budget -= self._row(rows, sequence, budget - kept)
        self._row(rows, oldest, budget)

    def _next(self) -> Sequence | None:
        """The next sequence to admit; it stays in its queue."""
        waiting = next((s for s in self.preempted if not s.paused), None)
        if waiting is not None:
            return waiting if waiting.in_flight == 0 else None
        return next((q[0] for q in self.queues.values() if _may_start(q[0])), None)

    def _take_in(self, sequence: Sequence) -> bool:
        """Give a sequence a slot and the blocks it can share; False if there is no room."""
        shared = self._shared(sequence)
        revived = sum(self.blocks.is_free(block) for block in shared)
        needed = self.blocks.blocks_for(sequence.length + 1) - len(shared)
        if needed + revived > self.blocks.free:
            return False
        self._dequeue(sequence)
        self.blocks.share(shared)
        sequence.blocks = shared
        sequence.computed = len(shared) * self.blocks.block_size
        sequence.slot = self._slots.pop()
        sequence.skipped = 0
        self.running.append(sequence)
        request = sequence.request
        if not request.admitted:
            request.admitted = time.monotonic()
            request.cached_tokens = sequence.computed
        return True

    def _shared(self, sequence: Sequence) -> list[int]:
        """Blocks that already hold a prefix; the last token is always computed again."""
        request = sequence.request
        limit = (sequence.length - 1) // self.blocks.block_size
        if request.params.prompt_logprobs is not None:
            return []
        found = self.blocks.lookup(request.salt, sequence.token_ids, limit)
        leader = request.sequences[0]
        if sequence.index > 0 and leader.slot >= 0:
            fork = leader.blocks[: (sequence.output_start - 1) // self.blocks.block_size]
            found = max(found, fork, key=len)
        return list(found)

    def _dequeue(self, sequence: Sequence) -> None:
        if sequence in self.preempted:
            self.preempted.remove(sequence)
            return
        client = sequence.request.client
        queue = self.queues[client]
        queue.popleft()
        if queue:
            self.queues.move_to_end(client)
        else:
            del self.queues[client]

    def _row(self, rows: list[Row], sequence: Sequence, budget: int) -> int:
        """Add a row of at most `budget` tokens; how many it took."""
        count = min(sequence.remaining, budget)
        if sequence.request.params.prompt_logprobs is not None:
            count = min(count, SCORED_CHUNK)
        if (
            count <= 0
            or sequence.slot < 0
            or not self._reserve(rows, sequence, sequence.computed + count)
        ):
            return 0
        samples = count == sequence.remaining and sequence.request.max_tokens > 0
        rows.append(Row(sequence, sequence.computed, count, samples))
        sequence.computed += count
        sequence.in_flight += samples
        return count

    def _reserve(self, rows: list[Row], sequence: Sequence, tokens: int) -> bool:
        """Own the blocks for `tokens` tokens, at the cost of younger sequences if need be."""
        while (missing := self.blocks.blocks_for(tokens) - len(sequence.blocks)) > 0:
            if (taken := self.blocks.allocate(missing)) is not None:
                sequence.blocks += taken
            elif (victim := self._victim(rows, sequence)) is not None:
                self.preempt(victim)
            else:
                return False
        return True

    def _victim(self, rows: list[Row], sequence: Sequence) -> Sequence | None:
        """The youngest that is not in the step: paused ones first, else younger than `sequence`."""
        in_step = {id(row.sequence) for row in rows}
        others = [s for s in self.running if s is not sequence and id(s) not in in_step]
        paused = [s for s in others if s.paused]
        younger = [s for s in others if s in self.running[self.running.index(sequence) + 1 :]]
        candidates = paused or younger
        return candidates[-1] if candidates else None

    def _paused_with_blocks(self) -> Sequence | None:
        """The youngest sequence that holds blocks and whose reader does not read."""
        return next((s for s in reversed(self.running) if s.paused), None)

    def preempt(self, sequence: Sequence) -> None:
        """Take back blocks and slot; the sequence computes them again later, before others."""
        self.preemptions += 1
        self.running.remove(sequence)
        self._give_back(sequence)
        sequence.computed = 0
        self.preempted.appendleft(sequence)

    def remember(self, sequence: Sequence, computed: int) -> None:
        """Let the blocks be found whose tokens are computed and read back."""
        if not self.blocks.prefix_cache:
            return
        size, digests = self.blocks.block_size, sequence.digests
        full = min(computed, len(sequence.token_ids)) // size
        for index in range(sequence.registered, full):
            tokens = sequence.token_ids[index * size : (index + 1) * size]
            if index == len(digests):
                salt = sequence.request.salt
                parent = digests[-1] if digests else self.blocks.root(salt)
                digests.append(self.blocks.extend(parent, tokens))
            self.blocks.register(sequence.blocks[index], digests[index], tokens)
        sequence.registered = max(sequence.registered, full)

    def _give_back(self, sequence: Sequence) -> None:
        self.blocks.release(sequence.blocks)
        sequence.blocks = []
        self._slots.append(sequence.slot)
        self._on_release(sequence.slot)
        sequence.slot = -1
        sequence.registered = 0

    def _runnable(self, sequence: Sequence) -> bool:
        done = sequence.generated >= max(sequence.request.max_tokens, 1)
        return sequence.slot >= 0 and not sequence.paused and not done

    def _age(self, rows: list[Row]) -> None:
        scheduled = {id(row.sequence) for row in rows}
        for sequence in self.running:
            waits = id(sequence) not in scheduled and sequence.remaining > 0
            sequence.skipped = sequence.skipped + 1 if waits and not sequence.paused else 0


def _may_start(sequence: Sequence) -> bool:
    """Whether the prompt of its first sibling is computed, so that blocks can be shared."""
    leader = sequence.request.sequences[0]
    return sequence is leader or leader.slot < 0 or leader.computed >= leader.output_start
