"""Starting on a GPU: weights that are kept, and a bound that holds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import llmkernel
from llmkernel.config import WorkerConfig
from llmkernel.connection import Connection
from llmkernel.errors import NotEnoughMemory
from llmkernel.worker import budget, memory
from llmkernel.worker.assembly import assemble
from llmkernel.worker.loader import load
from llmkernel.worker.models.packed import PackedLinear
from tests.formats import packers
from tests.loader import small_checkpoints

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
    pytest.mark.filterwarnings("ignore:.*script_method:DeprecationWarning"),
]
DEVICE = torch.device("cuda", 0)
ROOM = 3 * 2**29


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMKERNEL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("LLMKERNEL_KERNELS", "1")


@pytest.fixture
def no_bound() -> Iterator[None]:
    """The bound holds for a process; the next test has none."""
    yield
    torch.cuda.set_per_process_memory_fraction(1.0, DEVICE)


def start(folder: Path, **settings: Any) -> tuple[Any, set[str]]:
    """A loaded model and the stages that were reported."""
    stages: list[str] = []
    config = WorkerConfig.build(model=str(folder), device="cuda:0", **settings)
    loaded = load(config, lambda step: stages.append(step.stage))
    loaded.tokenizer.close()
    return loaded, set(stages)


def state(model: Any) -> dict[str, torch.Tensor]:
    return dict(model.named_parameters()) | dict(model.named_buffers())


@pytest.mark.parametrize(
    "kind", ["nf4", "nf4 tied", "nf4 qwen3", "fp4", "gptq", "awq", "stored", "stored double"]
)
def test_kept_weights_are_those_of_a_fresh_load(tmp_path: Path, kind: str) -> None:
    settings: dict[str, Any] = {}
    folder = tmp_path / "quantised"
    if kind in ("gptq", "awq"):
        stored = packers.GPTQ if kind == "gptq" else packers.AWQ
        packers.save(tmp_path, small_checkpoints.config(), stored)
    elif kind.startswith("stored"):
        small_checkpoints.save(tmp_path / "plain", tie_word_embeddings=True)
        # the rest is stored in another dtype than the worker's
        double = kind.endswith("double")
        small_checkpoints.save_quantised(tmp_path / "plain", folder, "nf4", torch.float16, double)
    elif kind == "nf4 qwen3":
        packers.save(tmp_path, small_checkpoints.families()["qwen3"], packers.GPTQ)
    else:
        small_checkpoints.save(folder, tie_word_embeddings="tied" in kind)
        settings["quantization"] = kind[:3]
    first, stages = start(folder, **settings)
    assert "keep" in stages
    second, stages = start(folder, **settings)
    assert "keep" not in stages
    assert "quantise" not in stages
    one, other = state(first.model), state(second.model)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert {tensor.device for tensor in other.values()} == {DEVICE}
    layers = [module for module in second.model.modules() if isinstance(module, PackedLinear)]
    assert layers
    assert all(layer.kernels for layer in layers)
    assert first.info == second.info


def test_kernels_that_compute_wrongly_send_back_to_the_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_checkpoints.save(tmp_path / "m")
    start(tmp_path / "m", quantization="nf4")
    monkeypatch.setattr("llmkernel.worker.models.packed.agrees", lambda *_: False)
    _, stages = start(tmp_path / "m", quantization="nf4")
    assert {"quantise", "keep"} <= stages


def test_a_bound_too_small_for_the_model_is_refused_with_both_numbers(
    tmp_path: Path, no_bound: None
) -> None:
    small_checkpoints.save(tmp_path / "m")
    for setting in (budget.OUTSIDE - 1, budget.OUTSIDE + 2**20):
        with pytest.raises(NotEnoughMemory) as caught:
            start(tmp_path / "m", quantization="nf4", gpu_memory=setting)
        assert caught.value.data["needed"] >= caught.value.data["free"]


def test_the_cache_takes_what_the_bound_leaves(tmp_path: Path, no_bound: None) -> None:
    small_checkpoints.save(tmp_path / "m")
    config = WorkerConfig.build(
        model=str(tmp_path / "m"), device="cuda:0", gpu_memory=ROOM, kv_cache="64GiB"
    )
    before = torch.cuda.memory_allocated(DEVICE)
    parts = assemble(config, lambda _: None)
    try:
        assert parts.info.gpu_memory == ROOM
        assert parts.info.kv_cache_bytes > 0
        assert torch.cuda.memory_reserved(DEVICE) <= ROOM - budget.OUTSIDE
        with pytest.raises(torch.OutOfMemoryError):
            torch.empty(ROOM, dtype=torch.uint8, device=DEVICE)
        assert memory.free_bytes(DEVICE) < ROOM - budget.OUTSIDE - before
    finally:
        parts.tokenizer.close()  # type: ignore[attr-defined]


@pytest.mark.alone
def test_a_worker_never_takes_more_than_its_bound(
    tmp_path: Path, start_worker: Callable[..., Connection]
) -> None:
    small_checkpoints.save(tmp_path / "m")
    before = used()
    worker = start_worker(
        model=str(tmp_path / "m"),
        name="bounded",
        device="cuda:0",
        quantization="nf4",
        gpu_memory=ROOM,
        kv_cache="64GiB",
    )
    with llmkernel.connect("bounded") as client:
        client.map([[5, 6, 7]] * 64, max_tokens=32, ignore_eos=True)
        taken = used() - before
        status = client.status()
    print(f"bound {ROOM}, taken {taken}, of it torch's {status.device_bytes}")
    assert worker.alive
    assert status.model is not None
    assert status.model.gpu_memory == ROOM
    assert status.device_bytes < taken <= ROOM


def used() -> int:
    """Bytes in use by everybody, as the driver says."""
    free, total = torch.cuda.mem_get_info(DEVICE)
    return total - free
