"""An engine without its thread: every step is taken by the test, every event is kept."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from llmkernel.errors import LLMKernelError
from llmkernel.params import SamplingParams
from llmkernel.worker.engine import Engine
from llmkernel.worker.scripted import ByteTokenizer, Script, ScriptedRunner
from llmkernel.worker.sequence import EndEvent, EngineEvent, Request, TokenEvent
from llmkernel.worker.step import GraphRoom, StepBatch, StepResult

TOKENIZER = ByteTokenizer()
BLOCK_SIZE = 16
MOST_STEPS = 100_000
Misfortune = Callable[[int, StepBatch], Exception | None]


def request(key: int, prompt: str = "hello", *, client: str = "a", **params: object) -> Request:
    """A greedy request of 32 tokens unless `params` say otherwise."""
    values = {"temperature": 0.0, "max_tokens": 32} | params
    checked = SamplingParams.build(**values)
    assert checked.max_tokens is not None
    return Request(
        key,
        client,
        tuple(TOKENIZER.encode(prompt)),
        checked,
        checked.max_tokens,
        salt=client.encode(),
        eos_token_ids=TOKENIZER.eos_token_ids,
        seed=checked.seed if checked.seed is not None else key,
    )


class Watched:
    """A scripted runner behind checks of what every step must keep to.

    `at_launch` and `at_collect` are asked with the number of the step, from 1, and may
    give an exception to raise.
    """

    def __init__(self, driver: Driver, script: Script) -> None:
        self.driver = driver
        self.scripted = ScriptedRunner(script, BLOCK_SIZE, driver.max_concurrent)
        self.tokens = 0
        self.widest = 0
        self.at_launch: Misfortune = lambda number, batch: None
        self.at_collect: Misfortune = lambda number, batch: None
        self._begun: set[int] = set()
        """Slots that had a row since they were given to somebody."""

    def launch(self, batch: StepBatch) -> Any:
        """Check the batch and compute it."""
        self._check(batch)
        self.tokens += batch.tokens
        self.widest = max(self.widest, len(batch.rows))
        failure = self.at_launch(self.scripted.steps + 1, batch)
        if failure is not None:
            self.scripted.steps += 1
            raise failure
        launched = self.scripted.launch(batch)
        return self.scripted.steps, batch, launched

    def collect(self, launched: Any) -> StepResult:
        """The scripted result, unless something is to happen to it."""
        number, batch, handle = launched
        failure = self.at_collect(number, batch)
        if failure is not None:
            raise failure
        return self.scripted.collect(handle)

    def release(self, slot: int) -> None:
        """The slot is free; its last token is gone."""
        self._begun.discard(slot)
        self.scripted.release(slot)

    def _check(self, batch: StepBatch) -> None:
        counts = [row.count for row in batch.rows]
        assert counts == sorted(counts, key=lambda count: count > 1), "decode rows come first"
        slots = [row.sequence.slot for row in batch.rows]
        decoding = (row.samples and row.count == 1 for row in batch.rows)
        budget = self.driver.max_batch_tokens
        if not any(
            decodes and slot in self._begun for decodes, slot in zip(decoding, slots, strict=True)
        ):
            budget = self.driver.max_prefill_tokens or budget
        assert sum(count for count in counts if count > 1) <= budget
        self._begun.update(slots)
        assert len(set(slots)) == len(slots), "a slot is twice in a step"
        assert all(0 <= slot < self.driver.max_concurrent for slot in slots)
        blocks = self.driver.engine.blocks
        for row in batch.rows:
            assert not row.sequence.paused
            first, last = row.start // BLOCK_SIZE, (row.start + row.count - 1) // BLOCK_SIZE
            for block in row.sequence.blocks[first : last + 1]:
                assert block > 0, "block 0 is nobody's"
                assert not blocks.is_cached(block), "a block that can be found was written to"
                assert blocks.references(block) == 1, "a shared block was written to"
            assert last < len(row.sequence.blocks), "a row has no block"


@dataclass
class Driver:
    """A real engine over a scripted runner, one step at a time."""

    script: Script = field(default_factory=Script)
    num_blocks: int = 2000
    max_concurrent: int = 32
    max_batch_tokens: int = 256
    max_prefill_tokens: int | None = None
    prefix_cache: bool = True
    depth: int = 0
    graph_room: GraphRoom | None = None

    def __post_init__(self) -> None:
        self.tokens: dict[tuple[int, int], list[int]] = {}
        self.ends: dict[tuple[int, int], EndEvent] = {}
        self.deaths: list[BaseException] = []
        self.runner = Watched(self, self.script)
        self.engine = Engine(
            self.runner,
            num_blocks=self.num_blocks,
            block_size=BLOCK_SIZE,
            max_concurrent=self.max_concurrent,
            max_batch_tokens=self.max_batch_tokens,
            max_prefill_tokens=self.max_prefill_tokens,
            context_length=2048,
            prefix_cache=self.prefix_cache,
            depth=self.depth,
            graph_room=self.graph_room,
            on_events=self.take,
            on_death=self.deaths.append,
        )

    def take(self, events: list[EngineEvent]) -> None:
        """Keep the events of a step. Raises AssertionError for one after its end."""
        for event in events:
            name = (event.request.key, event.answer)
            assert name not in self.ends, "an event came after the end"
            if isinstance(event, TokenEvent):
                self.tokens.setdefault(name, []).append(event.sampled.token_id)
            else:
                self.ends[name] = event

    def submit(self, *requests: Request) -> None:
        """Give requests to the engine."""
        for one in requests:
            self.engine.submit(one)

    def step(self, steps: int = 1) -> None:
        """Take some steps and check the books after each."""
        for _ in range(steps):
            self.engine.step()
            self.check()

    def run(self) -> None:
        """Step until there is nothing left to do."""
        for _ in range(MOST_STEPS):
            if not self.engine.step():
                break
            self.check()
        else:
            raise AssertionError("the engine never came to rest")
        self.check_empty()

    def check(self) -> None:
        """The blocks agree with their owners."""
        self.engine.blocks.check([s.blocks for s in self.engine.scheduler.running])

    def check_empty(self) -> None:
        """Nothing is owned, queued or remembered."""
        load = self.engine.load()
        assert (load.running, load.waiting) == (0, 0)
        assert load.free_blocks == self.num_blocks - 1
        assert self.engine.idle
        self.engine.blocks.check([])
        free_slots = sorted(self.engine.scheduler.free_slots)
        assert free_slots == list(range(self.max_concurrent)), "a slot was lost"

    def waited(self) -> int:
        """The largest number of steps that a sequence which could run has been passed over."""
        scheduler = self.engine.scheduler
        able = (s for s in scheduler.running if scheduler.can_run(s))
        return max((scheduler.step - s.last_step for s in able), default=0)

    def text(self, key: int, answer: int = 0) -> str:
        """The generated text of an answer."""
        return TOKENIZER.decode(self.tokens.get((key, answer), []), skip_special_tokens=True)

    def reason(self, key: int, answer: int = 0) -> str:
        """Why an answer ended."""
        return self.ends[key, answer].finish_reason

    def error(self, key: int, answer: int = 0) -> LLMKernelError | None:
        """The error an answer ended with."""
        return self.ends[key, answer].error

    def failed(self) -> set[int]:
        """Keys of the requests that ended with an error."""
        return {key for (key, _), end in self.ends.items() if end.error is not None}


def workload(seed: int, count: int, most_tokens: int = 60) -> list[Request]:
    """Requests of many kinds: short, long, with a common prefix, greedy, seeded, several answers."""
    chance = random.Random(seed)
    result = []
    for key in range(count):
        length = chance.choice((3, 40, 200, 500))
        text = "".join(chance.choice("ab \n") for _ in range(chance.randrange(1, length)))
        if key % 3 == 0:
            text = "a prefix that several of them share, block after block. " * 2 + text[:50]
        drawn = {"temperature": 1.0, "n": 1 + key % 4} if key % 2 else {}
        limit = chance.randrange(1, most_tokens)
        result.append(request(key, text, client="abc"[key % 3], max_tokens=limit, **drawn))
    return result


def alone(requests: list[Request]) -> dict[tuple[int, int], list[int]]:
    """The tokens of each request when it has an engine to itself."""
    result: dict[tuple[int, int], list[int]] = {}
    for one in requests:
        driver = Driver(prefix_cache=False)
        driver.submit(one)
        driver.run()
        result |= driver.tokens
    return result


def check_equal(tokens: dict[tuple[int, int], list[int]], expected: dict, failed: set[int]) -> None:
    """Whoever did not fail got all its tokens; whoever failed got the first of them."""
    for (key, answer), wanted in expected.items():
        got = tokens.get((key, answer), [])
        if key in failed:
            assert got == wanted[: len(got)]
        else:
            assert got == wanted, f"answer {answer} of request {key} differs"
