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
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(3):  # a prefill among decode rows, then decode rows
            driver.step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    driver.run()


@pytest.mark.parametrize("name", [n for n in tiny_models.VARIANTS if n not in EXPERTS])
def test_the_decode_step_can_be_captured_and_replayed(name):
    runner = cuda_runner(name)
    driver = decoding(runner)
    forward, launch = runner._forward, runner.launch
    graph, batches, eager = torch.cuda.CUDAGraph(), [], []
    runner.launch = lambda batch: batches.append(batch) or launch(batch)
    driver.step()
    tensors = runner._inputs.fill(batches[-1])
    with torch.inference_mode(), torch.cuda.graph(graph):
        captured = forward(tensors)
    runner._forward = lambda tensors: eager.append(forward(tensors)) or eager[-1]
    for _ in range(2):  # within the same number of blocks
        driver.step()
        graph.replay()
        torch.testing.assert_close(captured, eager[-1], rtol=1e-4, atol=1e-4)


def test_memory_is_the_pools_and_little_more():
    name, blocks = "llama", 2000
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    runner = cuda_runner(name, num_blocks=blocks)
    runner.warm_up()
    from llmkernel.worker.runner import kv_bytes_per_block

    pools = blocks * kv_bytes_per_block(runner._loaded, 16)
    weights = sum(p.nbytes for p in runner._loaded.model.parameters())
    assert torch.cuda.memory_allocated() - before < 1.1 * (pools + weights)


def test_a_step_without_memory_fails_alone():
    from llmkernel.errors import DeviceOutOfMemory

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
