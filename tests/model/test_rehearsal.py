"""Attention is tried before the weights are there: each kernel that a first step launches, and no trouble."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest
import torch

from benchmarks import tiny_models
from llmkernel.worker.models import rehearsal
from tests.model.driving import Driver, make_prompt, make_runner

pytest.importorskip("triton", reason="pip install 'llmkernel[dev]' brings Triton")
from llmkernel.worker.kernels import split_attention, tiled_attention

DEVICE = torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
pytestmark = pytest.mark.timeout(120)


@pytest.mark.parametrize(
    ("window", "kinds", "expected"),
    [
        (None, None, [None]),
        (64, None, [64]),
        (None, ["full_attention"], [None]),
        (64, ["sliding_attention", "full_attention"], [None, 64]),
        (64, ["sliding_attention"], [64]),
        (64, ["full_attention"], [None]),
    ],
)
def test_each_window_of_a_layer_is_tried(window, kinds, expected):
    kind = type("Config", (), {"sliding_window": None})
    config = kind()
    config.sliding_window, config.layer_types = window, kinds
    assert list(rehearsal.windows(config)) == expected


def test_a_window_that_no_layer_reads_is_none():
    config = SimpleNamespace(sliding_window=64, layer_types=None)
    assert list(rehearsal.windows(config)) == [None]


class Kernels:
    """What is launched of Triton's kernels: name and what they are compiled for."""

    def __init__(self, monkeypatch):
        self.seen = set()
        for module, name in (
            (split_attention, "_attend_part"),
            (split_attention, "_join_parts"),
            (tiled_attention, "_attend_tile"),
            (tiled_attention, "_join_parts"),
        ):
            monkeypatch.setattr(module, name, self._watched(getattr(module, name), name))

    def _watched(self, kernel, name):
        class Watched:
            def __getitem__(_, grid):  # noqa: N805 - self is the one outside
                def launch(*arguments, **sizes):
                    types = tuple(a.dtype for a in arguments if isinstance(a, torch.Tensor))
                    self.seen.add((name, types, frozenset(sizes.items())))
                    return kernel[grid](*arguments, **sizes)

                return launch

        return Watched()


@pytest.mark.parametrize(
    "name", ["llama", "mistral-window", "gemma2", "gemma3", "falcon-7b", "gpt-oss"]
)
def test_what_first_steps_launch_was_tried(name, monkeypatch):
    tried = Kernels(monkeypatch)
    model = tiny_models.build(name)
    rehearsal.rehearse(model.config, block_size=16, dtype=torch.float32, device=DEVICE)
    before = set(tried.seen)
    assert {kernel for kernel, _, _ in before} == {"_attend_part", "_join_parts", "_attend_tile"}
    with monkeypatch.context() as switched:
        for which, function in (
            ("decode_attention_for", split_attention.split_decode_attention),
            ("prefill_attention_for", tiled_attention.tiled_prefill_attention),
        ):
            switched.setattr(
                f"llmkernel.worker.models.attention.{which}", lambda device, by=function: by
            )
        runner = make_runner(name, loaded={"model": model.to(DEVICE), "device": DEVICE})
    driver = Driver(runner, chunk=9)
    driver.add(make_prompt(20), 2)
    driver.run()
    assert tried.seen == before


def test_nothing_is_tried_where_attention_is_torchs():
    wait = rehearsal.begin(None, block_size=16, dtype=torch.float32, device=torch.device("cpu"))
    assert "llmkernel-rehearsal" not in {thread.name for thread in threading.enumerate()}
    wait()


def test_who_waits_waits_for_its_end(monkeypatch):
    done = threading.Event()

    def rehearse(config, **sizes):
        threading.Event().wait(0.3)
        done.set()

    monkeypatch.setattr(rehearsal, "prefill_attention_for", lambda device: print)
    monkeypatch.setattr(rehearsal, "rehearse", rehearse)
    wait = rehearsal.begin(None, block_size=16, dtype=torch.float32, device=torch.device("cpu"))
    assert not done.is_set()
    wait()
    assert done.is_set()


def test_what_goes_wrong_is_left_to_the_first_step(monkeypatch, caplog):
    monkeypatch.setattr(rehearsal, "prefill_attention_for", lambda device: print)
    with caplog.at_level("INFO", rehearsal.__name__):
        wait = rehearsal.begin(None, block_size=16, dtype=torch.float32, device=torch.device("cpu"))
        wait()
    (record,) = caplog.records
    assert record.getMessage().startswith("attention could not be tried beforehand: ")
    caplog.clear()


@pytest.mark.gpu
@pytest.mark.skipif(DEVICE.type == "cpu", reason="needs a CUDA device")
def test_first_steps_compile_nothing_more(monkeypatch):
    monkeypatch.setenv("LLMKERNEL_KERNELS", "1")
    model = tiny_models.build("mistral-window").to(DEVICE, torch.bfloat16)
    kernels = (
        split_attention._attend_part,
        split_attention._join_parts,
        tiled_attention._attend_tile,
    )

    def compiled():
        return [len(kernel.device_caches[0][0]) for kernel in kernels]

    rehearsal.begin(model.config, block_size=16, dtype=torch.bfloat16, device=DEVICE)()
    before = compiled()
    loaded = {"model": model, "device": DEVICE, "dtype": torch.bfloat16}
    runner = make_runner("mistral-window", loaded=loaded)
    runner.warm_up()
    driver = Driver(runner, chunk=9)
    driver.add(make_prompt(40), 2)
    driver.run()
    assert compiled() == before
