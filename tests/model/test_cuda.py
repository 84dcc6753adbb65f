"""What only a GPU can show of the runner."""

from __future__ import annotations

import pytest
import torch

from benchmarks import tiny_models
from tests.model.driving import Driver, make_prompt, make_runner

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
LENGTHS = (5, 17, 40, 70)
TOKENS = 12
EXPERTS = ("mixtral", "gpt-oss")
"""transformers' code for experts asks the device which of them are hit."""


def cuda_runner(name, dtype=torch.float32, **settings):
    model = tiny_models.build(name).to("cuda", dtype)
    loaded = {"model": model, "device": torch.device("cuda"), "dtype": dtype}
    return make_runner(name, loaded=loaded, **settings)


def decoding(runner, **settings):
    driver = Driver(runner, **settings)
    for length in LENGTHS:
        driver.add(make_prompt(length, length), 40)
    for _ in range(3):
        driver.step()
    return driver


@pytest.mark.parametrize("name", tiny_models.VARIANTS)
@pytest.mark.parametrize(("depth", "chunk"), [(0, 1000), (1, 7)])
def test_a_batch_answers_as_each_would_alone(name, depth, chunk):
    reference = tiny_models.build(name).to("cuda")
    driver = Driver(cuda_runner(name), depth=depth, chunk=chunk)
    sequences = [driver.add(make_prompt(length, length), TOKENS) for length in LENGTHS]
    driver.run()
    for length, sequence in zip(LENGTHS, sequences, strict=True):
        expected = tiny_models.generate(reference, make_prompt(length, length), TOKENS)[0]
        assert list(sequence.output_ids) == expected


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["llama", "gemma2", "gpt-oss", "falcon-new", "qwen3"])
def test_half_precision_runs_mixed_steps(name, dtype):
    driver = Driver(cuda_runner(name, dtype), depth=1, chunk=9)
    sequences = [driver.add(make_prompt(length, length), TOKENS) for length in LENGTHS]
    driver.run()
    assert all(min(sequence.output_ids) >= 0 for sequence in sequences)


@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype")
@pytest.mark.parametrize("name", [n for n in tiny_models.VARIANTS if n not in EXPERTS])
def test_launching_a_step_does_not_wait_for_the_device(name):
    driver = decoding(cuda_runner(name, copies=4), depth=3)
    driver.add(make_prompt(30, 30), 10)
    for _ in range(4):  # capturing the graph of five rows waits
        driver.step()
    driver.add(make_prompt(31, 31), 10)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(3):  # a prefill among decode rows, then decode rows
            driver.step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    driver.run()


@pytest.fixture(autouse=True, params=["0", "1"], ids=["plain", "own-kernels"])
def kernels(request, monkeypatch):
    """Every test once with torch's attention and once with the project's kernels and graphs."""
    monkeypatch.setenv("LLMKERNEL_KERNELS", request.param)
    return request.param == "1"


@pytest.mark.parametrize("name", tiny_models.VARIANTS)
def test_replayed_steps_are_those_that_are_launched(name, kernels, monkeypatch):
    if not kernels:
        pytest.skip("graphs are captured of the project's own kernels only")
    answers = []
    for allowed in ("1", "0"):
        monkeypatch.setenv("LLMKERNEL_CUDA_GRAPHS", allowed)
        runner = cuda_runner(name)
        assert (runner._graphs is not None) == (allowed == "1" and name not in EXPERTS)
        driver = Driver(runner, depth=1)
        sequences = [driver.add(make_prompt(length, length), 30) for length in LENGTHS]
        driver.run()
        answers.append([list(sequence.output_ids) for sequence in sequences])
    assert answers[0] == answers[1]


def test_memory_is_the_pools_and_little_more():
    name, blocks = "llama", 2000
    cuda_runner(
        name, num_blocks=blocks
    ).warm_up()  # libraries take what they work in once a process
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    runner = cuda_runner(name, num_blocks=blocks)
    runner.warm_up()
    from llmkernel.worker.runner import kv_bytes_per_block

    pools = blocks * kv_bytes_per_block(runner._loaded, 16)
    weights = sum(p.nbytes for p in runner._loaded.model.parameters())
    assert torch.cuda.memory_allocated() - before < 1.1 * (pools + weights)


def test_a_step_without_memory_fails_alone(monkeypatch):
    from llmkernel.errors import DeviceOutOfMemory

    monkeypatch.setenv("LLMKERNEL_CUDA_GRAPHS", "0")  # a replay asks for no memory
    runner = cuda_runner("llama")
    driver = decoding(runner)
    greedy = [
        runner._loaded.model.model.layers[1].register_forward_pre_hook(
            lambda *_: torch.empty(2**50, dtype=torch.uint8, device="cuda")
        )
    ]
    with pytest.raises(DeviceOutOfMemory):
        driver.step()
    greedy.pop().remove()
    driver.run()


def compiled():
    """Kernels that Triton has compiled for attention."""
    from llmkernel.worker.kernels import split_attention, tiled_attention

    functions = (
        split_attention._attend_part,
        split_attention._join_parts,
        tiled_attention._attend_tile,
    )
    return sum(len(each[0]) for one in functions for each in one.device_caches.values())


@pytest.mark.filterwarnings("ignore:.*script_method:DeprecationWarning")
def test_attention_is_compiled_before_anybody_waits():
    model = tiny_models.build("llama").to("cuda", torch.bfloat16)
    loaded = {"model": model, "device": torch.device("cuda"), "dtype": torch.bfloat16}
    loaded["context_length"] = 2048
    runner = make_runner("llama", loaded=loaded, num_blocks=1200, max_batch_tokens=512)
    runner.warm_up()
    before = compiled()
    driver = Driver(runner, depth=1, chunk=130)
    for length in (1500, 700, 131, 65, 7, 3):
        driver.add(make_prompt(length, length), 30)
    driver.run()
    assert compiled() == before > 0
