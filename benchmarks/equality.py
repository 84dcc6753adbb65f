"""Greedy answers of the engine against transformers' `generate`, token for token.

    python -m benchmarks.equality [--quick] [--family NAME]... [--seed N] [--save]

For every variant of `tiny_models`: the real engine over the real runner, in float32 on
the CPU, alone and in batches up to 32 with random arrival, with and without prefix
cache, chunked, preempted, and with the host one step behind. The reference is
`generate` on an untouched copy with eager attention, one prompt at a time. A pair is
one prompt under one of those conditions. Prints pairs and differences; the exit code
is 1 where there was any, or where a condition did not come about.
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import command, results, tiny_models

BLOCK = 16
NEAR = 5e-5
"""Prompts are drawn again where a token of the reference leads by less than this share of the
largest logit: float32 rounding, measured at up to 5e-6 of it, could decide there."""


class Condition(NamedTuple):
    """How prompts are served: `width` at a time, and what makes it hard."""

    name: str
    prompts: int
    width: int
    prefix_cache: bool = False
    depth: int = 0
    max_batch_tokens: int = 512
    share_of_blocks: float = 1.0


CONDITIONS = (
    Condition("alone", 8, 1),
    Condition("alone, cached, one behind", 8, 1, prefix_cache=True, depth=1),
    Condition("2 at once", 8, 2, depth=1),
    Condition("4 at once, cached", 8, 4, prefix_cache=True),
    Condition("8 at once, cached, one behind", 16, 8, prefix_cache=True, depth=1),
    Condition("16 at once", 16, 16),
    Condition("32 at once, one behind", 32, 32, depth=1),
    Condition("32 at once, cached", 32, 32, prefix_cache=True),
    Condition("chunked", 16, 8, max_batch_tokens=16),
    Condition("chunked, cached, one behind", 16, 8, True, depth=1, max_batch_tokens=24),
    Condition("preempted", 16, 16, share_of_blocks=0.25),
    Condition("preempted, cached, one behind", 16, 16, True, depth=1, share_of_blocks=0.25),
    Condition("preempted, chunked", 16, 16, max_batch_tokens=24, share_of_blocks=0.25),
)
QUICK = tuple(
    condition._replace(prompts=min(condition.prompts, 8), width=min(condition.width, 8))
    for condition in CONDITIONS
    if condition.name
    in (
        "alone",
        "alone, cached, one behind",
        "8 at once, cached, one behind",
        "chunked",
        "preempted, cached, one behind",
    )
)


@dataclass
class Tally:
    """What came of a variant."""

    pairs: int = 0
    differences: list[str] = field(default_factory=list)
    tokens: int = 0
    redrawn: int = 0
    least_lead: float = 0.0
    events: Counter[str] = field(default_factory=Counter)
    """How often each condition really came about: widest batch, cached tokens, preemptions, chunks."""


class Reference(NamedTuple):
    """A prompt and transformers' answer, with the lead of each token over the next best."""

    prompt: list[int]
    answer: list[int]
    leads: list[float]


class _Loaded:
    """What the runner needs of a loaded model."""

    def __init__(self, name: str) -> None:
        import torch

        self.model = tiny_models.build(name)
        self.device = torch.device("cpu")
        self.dtype = torch.float32
        self.context_length = tiny_models.context_of(name)


class _Watched:
    """A runner that counts what the steps were."""

    def __init__(self, runner: Any, events: Counter[str]) -> None:
        self._runner = runner
        self._events = events
        self.collect = runner.collect
        self.release = runner.release

    def launch(self, batch: Any) -> Any:
        """Count and pass on."""
        self._events["widest batch"] = max(self._events["widest batch"], len(batch.rows))
        for row in batch.rows:
            unfinished = not row.samples and row.start + row.count < row.sequence.output_start
            self._events["chunks"] += unfinished
            self._events["one behind"] += row.start >= len(row.sequence.token_ids)
        return self._runner.launch(batch)


def make_prompt(rng: random.Random, earlier: list[Reference]) -> list[int]:
    """A prompt of 5 to 120 tokens; every third begins like an earlier one."""
    length = rng.choice((rng.randint(5, 40), rng.randint(41, 120)))
    prompt = rng.choices(range(tiny_models.SPECIAL, tiny_models.VOCABULARY), k=length)
    if len(earlier) % 3 == 2:
        shared = rng.choice(earlier).prompt[: rng.choice((16, 32, 50))]
        prompt[: len(shared)] = shared
    return prompt


def references(name: str, rng: random.Random, count: int, tally: Tally) -> list[Reference]:
    """Prompts of a variant, each with an answer of 4 to 40 tokens that rounding cannot change."""
    model = tiny_models.build(name)
    known: list[Reference] = []
    while len(known) < count:
        prompt = make_prompt(rng, known)
        reference = Reference(prompt, *tiny_models.generate(model, prompt, rng.randint(4, 40)))
        if min(reference.leads) < NEAR:
            tally.redrawn += 1
            continue
        known.append(reference)
    tally.tokens = sum(len(reference.answer) for reference in known)
    tally.least_lead = min(min(reference.leads) for reference in known)
    return known


class _Answers:
    """What the engine delivers: token ids by request key, and every end that was not wanted."""

    def __init__(self, count: int, events: Counter[str]) -> None:
        self.token_ids: list[list[int]] = [[] for _ in range(count)]
        self.ended = threading.Semaphore(0)
        self.problems: list[str] = []
        self._events = events

    def take(self, events: Iterable[Any]) -> None:
        """Called by the engine once a step."""
        for event in events:
            if hasattr(event, "sampled"):
                self.token_ids[event.request.key].append(event.sampled.token_id)
                continue
            if event.finish_reason != "length":
                self.problems.append(f"{event.finish_reason}: {event.error}")
            self._events["cached tokens"] += event.request.cached_tokens
            self.ended.release()

    def engine_died(self, error: BaseException) -> None:
        """Called by the engine when it leaves by itself."""
        self.problems.append(f"the engine died: {error}")

    def wait_for_one(self) -> None:
        """Wait for a request to end."""
        if not self.ended.acquire(timeout=60):
            raise TimeoutError("no answer ended within a minute")


def serve(
    loaded: Any, condition: Condition, wanted: list[Reference], rng: random.Random, tally: Tally
) -> list[list[int]]:
    """The engine's answers to the prompts, in order. Raises RuntimeError if a request fails."""
    from llmkernel.worker.engine import Engine
    from llmkernel.worker.runner import ModelRunner

    sizes: dict[str, Any] = {
        "num_blocks": _blocks(condition, wanted),
        "block_size": BLOCK,
        "max_concurrent": condition.width,
        "max_batch_tokens": condition.max_batch_tokens,
    }
    answers = _Answers(len(wanted), tally.events)
    engine = Engine(
        _Watched(ModelRunner(loaded, copies=condition.depth + 1, **sizes), tally.events),
        context_length=loaded.context_length,
        prefix_cache=condition.prefix_cache,
        depth=condition.depth,
        on_events=answers.take,
        on_death=answers.engine_died,
        **sizes,
    )
    engine.start()
    try:
        _submit(engine, condition, wanted, rng, answers)
        tally.events["preemptions"] += engine.load().preemptions
    finally:
        engine.stop()
    if answers.problems:
        raise RuntimeError(f"{condition.name}: {answers.problems[0]}")
    return answers.token_ids


def _submit(
    engine: Any,
    condition: Condition,
    wanted: list[Reference],
    rng: random.Random,
    answers: _Answers,
) -> None:
    """Keep up to `width` requests running, with random pauses between arrivals; wait for all.

    Where blocks are short there is no pause: only a crowd runs out of them.
    """
    from llmkernel.params import SamplingParams
    from llmkernel.worker.sequence import Request

    params = SamplingParams.build(temperature=0.0, ignore_eos=True)
    for key, reference in enumerate(wanted):
        if key >= condition.width:
            answers.wait_for_one()
        engine.submit(
            Request(
                key=key,
                client=f"client {key % 3}",
                prompt=tuple(reference.prompt),
                params=params,
                max_tokens=len(reference.answer),
            )
        )
        if condition.width > 1 and condition.share_of_blocks == 1.0:
            time.sleep(rng.choice((0.0, 0.0, 0.001, 0.003)))
    for _ in wanted[-condition.width :]:
        answers.wait_for_one()


def _blocks(condition: Condition, wanted: list[Reference]) -> int:
    """Blocks for `width` of the prompts at once, or the share of them; the largest fits alone.

    With a cache and all of its blocks, for every prompt: what is cached should stay.
    """
    sizes = sorted(-(-(len(r.prompt) + len(r.answer)) // BLOCK) for r in wanted)
    keeps = condition.prefix_cache and condition.share_of_blocks == 1.0
    together = sum(sizes if keeps else sizes[-condition.width :])
    return 1 + max(sizes[-1] + 1, int(together * condition.share_of_blocks))


def difference(reference: Reference, answer: list[int]) -> str | None:
    """Where an answer leaves the reference, and how close the choice was there; None if equal."""
    if answer == reference.answer:
        return None
    pairs = enumerate(zip(answer, reference.answer, strict=False))
    at = next((i for i, (ours, theirs) in pairs if ours != theirs), None)
    if at is None:
        return f"{len(answer)} tokens instead of {len(reference.answer)}"
    return f"token {at}, where the lead was {reference.leads[at]:.2g}"


def try_variant(name: str, conditions: Iterable[Condition], seed: int) -> Tally:
    """Serve one variant under all conditions."""
    rng = random.Random(f"{seed} {name}")
    conditions = list(conditions)
    tally = Tally()
    known = references(name, rng, max(condition.prompts for condition in conditions), tally)
    loaded = _Loaded(name)
    for condition in conditions:
        wanted = rng.sample(known, condition.prompts)
        if condition.prefix_cache:  # every prompt twice
            wanted = wanted[: condition.prompts // 2] * 2
        answers = serve(loaded, condition, wanted, rng, tally)
        tally.pairs += len(wanted)
        for number, pair in enumerate(zip(wanted, answers, strict=True)):
            if found := difference(*pair):
                tally.differences.append(f"{name}, {condition.name}, prompt {number}: {found}")
    return tally


def not_come_about(tallies: Iterable[Tally]) -> list[str]:
    """Conditions that were asked for and never happened, in all variants together."""
    events: Counter[str] = Counter()
    for tally in tallies:
        events += tally.events
    wanted = ("cached tokens", "preemptions", "chunks", "one behind")
    return [name for name in wanted if not events[name]]


def main(arguments: list[str] | None = None) -> int:
    """Try what was asked for and print it; 0 only if every pair is equal."""
    parser = command.parser(__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer prompts and conditions")
    parser.add_argument("--family", action="append", choices=list(tiny_models.VARIANTS))
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    conditions = QUICK if options.quick else CONDITIONS
    tallies: dict[str, Tally] = {}
    began = time.monotonic()
    print("model              pairs  different  tokens  redrawn  least lead")
    for name in options.family or tiny_models.VARIANTS:
        tally = tallies[name] = try_variant(name, conditions, options.seed)
        print(
            f"{name:17}{tally.pairs:7}{len(tally.differences):11}{tally.tokens:8}"
            f"{tally.redrawn:9}{tally.least_lead:12.1e}",
            flush=True,
        )
    return _report(tallies, time.monotonic() - began, save=options.save)


def _report(tallies: dict[str, Tally], seconds: float, *, save: Path | None) -> int:
    pairs = sum(tally.pairs for tally in tallies.values())
    differences = [line for tally in tallies.values() for line in tally.differences]
    events: Counter[str] = Counter()
    for tally in tallies.values():
        events += tally.events
    events["widest batch"] = max(tally.events["widest batch"] for tally in tallies.values())
    missing = not_come_about(tallies.values())
    print(f"{pairs} pairs, {len(differences)} differences in {seconds:.0f} s")
    print("came about: " + ", ".join(f"{name} {count}" for name, count in events.items()))
    for line in [*differences, *(f"never came about: {name}" for name in missing)]:
        print(line)
    if save:
        figures = {"pairs": pairs, "differences": differences, "seconds": round(seconds, 1),
                   "families": {n: [t.pairs, len(t.differences)] for n, t in tallies.items()},
                   "came_about": dict(events)}  # fmt: skip
        print(results.save("equality", figures, "", save))
    return 1 if differences or missing else 0


if __name__ == "__main__":
    command.run(main)
