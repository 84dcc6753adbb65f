"""An engine without its thread: every step is taken by the test, every event is kept."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from llmkernel.errors import LLMKernelError
from llmkernel.params import SamplingParams
from llmkernel.worker.engine import Engine
from llmkernel.worker.scripted import ByteTokenizer, Script, ScriptedRunner
from llmkernel.worker.sequence import EndEvent, EngineEvent, Request, TokenEvent

TOKENIZER = ByteTokenizer()
BLOCK_SIZE = 16
MOST_STEPS = 100_000


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


@dataclass
class Driver:
    """A real engine over a scripted runner, one step at a time."""

    script: Script = field(default_factory=Script)
    num_blocks: int = 2000
    max_concurrent: int = 32
    max_batch_tokens: int = 256
    prefix_cache: bool = True
    depth: int = 0

    def __post_init__(self) -> None:
        self.tokens: dict[tuple[int, int], list[int]] = {}
        self.ends: dict[tuple[int, int], EndEvent] = {}
        self.deaths: list[BaseException] = []
        self.runner = ScriptedRunner(self.script, BLOCK_SIZE, self.max_concurrent)
        self.engine = Engine(
            self.runner,
            num_blocks=self.num_blocks,
            block_size=BLOCK_SIZE,
            max_concurrent=self.max_concurrent,
            max_batch_tokens=self.max_batch_tokens,
            context_length=2048,
            prefix_cache=self.prefix_cache,
            depth=self.depth,
            on_events=self._take,
            on_death=self.deaths.append,
        )

    def _take(self, events: list[EngineEvent]) -> None:
        for event in events:
            name = (event.request.key, event.answer)
            assert name not in self.ends, "an event came after the end"
            if isinstance(event, TokenEvent):
                self.tokens.setdefault(name, []).append(event.sampled.token_id)
            else:
                self.ends[name] = event

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

    def text(self, key: int, answer: int = 0) -> str:
        """The generated text of an answer."""
        return TOKENIZER.decode(self.tokens.get((key, answer), []), skip_special_tokens=True)

    def reason(self, key: int, answer: int = 0) -> str:
        """Why an answer ended."""
        return self.ends[key, answer].finish_reason

    def error(self, key: int, answer: int = 0) -> LLMKernelError | None:
        """The error an answer ended with."""
        return self.ends[key, answer].error


def workload(seed: int, count: int) -> list[Request]:
    """Requests of many kinds: short, long, with a common prefix, greedy, seeded, several answers."""
    chance = random.Random(seed)
    result = []
    for key in range(count):
        length = chance.choice((3, 40, 200, 500))
        text = "".join(chance.choice("ab \n") for _ in range(chance.randrange(1, length)))
        if key % 3 == 0:
            text = "a prefix that several of them share, block after block. " * 2 + text[:50]
        drawn = {"temperature": 1.0, "n": 1 + key % 4} if key % 2 else {}
        limit = chance.randrange(1, 60)
        result.append(request(key, text, client="abc"[key % 3], max_tokens=limit, **drawn))
    return result


def alone(requests: list[Request]) -> dict[tuple[int, int], list[int]]:
    """The tokens of each request when it has an engine to itself."""
    result: dict[tuple[int, int], list[int]] = {}
    for one in requests:
        driver = Driver(prefix_cache=False)
        driver.engine.submit(one)
        driver.run()
        result |= driver.tokens
    return result
