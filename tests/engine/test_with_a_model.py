"""A shortage of memory in the midst of a real step: what the device kept of it must not count."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch

from benchmarks import tiny_models
from llmkernel.params import SamplingParams
from llmkernel.worker.engine import Engine
from llmkernel.worker.runner import ModelRunner
from llmkernel.worker.sequence import EngineEvent, Request, TokenEvent
from tests.engine.driver import BLOCK_SIZE
from tests.model.driving import LoadedForTest, make_prompt

CONTEXT = tiny_models.context_of("llama")


class Short:
    """A runner without memory for the steps of these numbers, which shows once they are computed."""

    def __init__(self, runner: ModelRunner, steps: tuple[int, ...]) -> None:
        self.collect = runner.collect
        self.release = runner.release
        self._runner = runner
        self._steps = steps
        self._step = 0

    def launch(self, batch: Any) -> Any:
        self._step += 1
        launched = self._runner.launch(batch)
        if self._step in self._steps:
            raise torch.OutOfMemoryError
        return launched


def requests() -> list[Request]:
    """Seeded and greedy ones whose tokens depend on how often each token came."""
    result = []
    for key in range(5):
        drawn = {"temperature": 1.0, "n": 2} if key % 2 else {"temperature": 0.0}
        params = SamplingParams.build(
            max_tokens=24, repetition_penalty=1.3, frequency_penalty=0.5, **drawn
        )
        prompt = tuple(make_prompt(20 + 7 * key, key))
        result.append(Request(key, "a", prompt, params, 24, seed=key))
    return result


def answers(
    device: str, depth: int, short: tuple[int, ...] = ()
) -> dict[tuple[int, int], list[int]]:
    """The tokens of each answer."""
    sizes = {"num_blocks": 100, "block_size": BLOCK_SIZE, "max_concurrent": 8}
    model = tiny_models.build("llama").to(device)
    loaded = LoadedForTest(model, context_length=CONTEXT, device=torch.device(device))
    tokens: dict[tuple[int, int], list[int]] = {}

    def take(events: list[EngineEvent]) -> None:
        for event in events:
            if isinstance(event, TokenEvent):
                name = (event.request.key, event.answer)
                tokens.setdefault(name, []).append(event.sampled.token_id)
            else:
                assert event.error is None

    engine = Engine(
        Short(ModelRunner(loaded, max_batch_tokens=64, copies=depth + 1, **sizes), short),
        **sizes,
        max_batch_tokens=64,
        context_length=CONTEXT,
        prefix_cache=True,
        depth=depth,
        on_events=take,
        on_death=lambda error: None,
    )
    for one in requests():
        engine.submit(one)
    while engine.step():
        pass
    assert bool(short) == bool(engine.load().preemptions)
    return tokens


@pytest.fixture(
    params=[
        "cpu",
        pytest.param(
            "cuda",
            marks=[
                pytest.mark.gpu,
                pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
            ],
        ),
    ]
)
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Where the model is; on a GPU with the project's own kernels and graphs."""
    monkeypatch.setenv("LLMKERNEL_KERNELS", "1")
    return str(request.param)


@functools.cache
def undisturbed(device: str) -> dict[tuple[int, int], list[int]]:
    """What comes where nothing happens."""
    return answers(device, depth=0)


@pytest.mark.parametrize("short", [(12,), (13, 14, 15)])
@pytest.mark.parametrize("depth", [0, 1])
def test_a_step_that_was_half_done_counts_for_nothing(
    device: str, depth: int, short: tuple[int, ...]
) -> None:
    assert answers(device, depth, short) == undisturbed(device)
