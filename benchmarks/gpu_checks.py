"""What only a GPU can show: the 8B shape in NF4 through the real path, and equality with the CPU.

    python -m benchmarks.gpu_checks [--save FILE] [--layers N] [--skip-large] [--skip-demo]

Needs a CUDA device and about 40 GB of disk for the large part: a Llama-3.1-8B
shaped checkpoint with random bfloat16 weights is built in a temporary folder, a
worker loads it with nf4, and the client measures it. Random weights answer
nonsense at the speed of real ones. Prints one JSON object at the end.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import msgspec

import llmkernel
from llmkernel.client import Client

VOCABULARY = 128256
PROMPT_TOKENS = 128
NEW_TOKENS = 256
WIDTHS = (1, 2, 4, 8, 16, 32, 64)


def build_checkpoint(folder: Path, layers: int) -> None:
    """Save a Llama-3.1-8B shape with random weights and a word-level tokenizer in the hub's layout."""
    import torch
    from safetensors.torch import save_file
    from transformers import LlamaConfig

    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=4096, intermediate_size=14336, num_hidden_layers=layers,
        num_attention_heads=32, num_key_value_heads=8, head_dim=128, max_position_embeddings=131072,
        rms_norm_eps=1e-5, bos_token_id=0, eos_token_id=1, tie_word_embeddings=False,
        architectures=["LlamaForCausalLM"], dtype="bfloat16",
    )  # fmt: skip
    config.save_pretrained(folder)
    generator = torch.Generator("cuda").manual_seed(0)

    def random(*shape: int) -> torch.Tensor:
        values = torch.randn(*shape, generator=generator, device="cuda", dtype=torch.bfloat16)
        return (values * 0.02).cpu()

    shapes = {
        "self_attn.q_proj": (4096, 4096), "self_attn.k_proj": (1024, 4096),
        "self_attn.v_proj": (1024, 4096), "self_attn.o_proj": (4096, 4096),
        "mlp.gate_proj": (14336, 4096), "mlp.up_proj": (14336, 4096), "mlp.down_proj": (4096, 14336),
    }  # fmt: skip
    index: dict[str, str] = {}

    def shard(name: str, tensors: dict[str, torch.Tensor]) -> None:
        save_file(tensors, folder / name, metadata={"format": "pt"})
        index.update(dict.fromkeys(tensors, name))

    for layer in range(layers):
        prefix = f"model.layers.{layer}."
        tensors = {f"{prefix}{name}.weight": random(*shape) for name, shape in shapes.items()}
        for norm in ("input_layernorm", "post_attention_layernorm"):
            tensors[f"{prefix}{norm}.weight"] = torch.ones(4096, dtype=torch.bfloat16)
        shard(f"model-{layer:05}.safetensors", tensors)
    shard(
        "model-ends.safetensors",
        {
            "model.embed_tokens.weight": random(VOCABULARY, 4096),
            "model.norm.weight": torch.ones(4096, dtype=torch.bfloat16),
            "lm_head.weight": random(VOCABULARY, 4096),
        },
    )
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": index})
    )
    build_tokenizer(folder)


def build_tokenizer(folder: Path) -> None:
    """Save a tokenizer with one word an id, so that every id has a text of its own."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {f"w{number}": number for number in range(2, VOCABULARY)}
    tokenizer = Tokenizer(models.WordLevel({"<s>": 0, "</s>": 1} | words, unk_token="<s>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Fuse()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")
    fast.save_pretrained(folder)


def prompt(number: int, length: int = PROMPT_TOKENS) -> list[int]:
    """A prompt of `length` ids that shares no prefix with another number's."""
    return [2 + (number * 7919 + i * 31) % (VOCABULARY - 2) for i in range(length)]


def decode_width(llm: Client, width: int, first: int) -> dict[str, float]:
    """Stream `width` requests at once; aggregate decode tokens/s and times to first token in s."""
    stamps: list[list[float]] = [[] for _ in range(width)]
    barrier = threading.Barrier(width + 1)

    def read(row: int) -> None:
        barrier.wait()
        stamps[row].append(time.monotonic())
        stream = llm.stream(
            prompt(first + row), max_tokens=NEW_TOKENS, temperature=0, ignore_eos=True
        )
        for delta in stream:
            stamps[row] += [time.monotonic()] * len(delta.token_ids)

    threads = [threading.Thread(target=read, args=(row,)) for row in range(width)]
    for thread in threads:
        thread.start()
    barrier.wait()
    for thread in threads:
        thread.join()
    assert all(len(row) == NEW_TOKENS + 1 for row in stamps), "a stream lost tokens"
    begin, end = max(row[1] for row in stamps), min(row[-1] for row in stamps)
    inside = sum(begin < stamp <= end for row in stamps for stamp in row[1:])
    gaps = [b - a for row in stamps for a, b in itertools.pairwise(row[1:])]
    return {
        "width": width,
        "tokens_per_second": round(inside / (end - begin), 1),
        "first_token_s": round(statistics.median(row[1] - row[0] for row in stamps), 4),
        "gap_p50_ms": round(1e3 * statistics.median(gaps), 2),
        "gap_p99_ms": round(1e3 * sorted(gaps)[int(0.99 * len(gaps))], 2),
    }


def check_cancel(llm: Client) -> dict[str, Any]:
    """Break out of a stream; seconds until the worker's blocks are free again."""
    before = llm.status().load.free_blocks
    stream = llm.stream(prompt(90_001), max_tokens=4096, temperature=0, ignore_eos=True)
    for count, _ in enumerate(stream):
        if count == 20:
            break
    stream.close()
    began = time.monotonic()
    while llm.status().load.running:
        assert time.monotonic() - began < 5, "the cancelled request still runs"
        time.sleep(0.005)
    load = llm.status().load
    return {
        "cancel_s": round(time.monotonic() - began, 3),
        "free_blocks": [before, load.free_blocks],
    }


def gpu_used() -> int:
    """Bytes in use on device 0, by everybody."""
    import torch

    free, total = torch.cuda.mem_get_info()
    return int(total - free)


def check_large(layers: int) -> dict[str, Any]:
    """Load, stream, cancel and stop the 8B shape; figures of each."""
    report: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "llama-8b-shape"
        folder.mkdir()
        began = time.monotonic()
        build_checkpoint(folder, layers)
        report["build_s"] = round(time.monotonic() - began, 1)
        import torch

        torch.cuda.empty_cache()
        before = gpu_used()
        stages: dict[str, float] = {}
        began = time.monotonic()
        llm = llmkernel.start(
            str(folder), name="gpu-checks", quantization="nf4", context_length=16384,
            kv_cache="8GiB", on_progress=lambda p: stages.setdefault(p.stage, time.monotonic() - began),
        )  # fmt: skip
        report["ready_s"] = round(time.monotonic() - began, 1)
        report["stages_begin_s"] = {stage: round(at, 1) for stage, at in stages.items()}
        try:
            report |= measure(llm)
            took = llm.status().model
            assert took is not None
            report["model"] = msgspec.to_builtins(took) | {"model": folder.name}
            report["device_bytes_used"] = gpu_used() - before
        finally:
            llm.stop()
        report["device_bytes_after_stop"] = wait_for_memory(before) - before
    return report


def measure(llm: Client) -> dict[str, Any]:
    """The figures of a running worker."""
    report: dict[str, Any] = {"decode": []}
    decode_width(llm, 2, 80_000)  # warm up allocator and kernels
    for width in WIDTHS:
        decode_width(llm, width, 70_000 + 100 * width)  # the graph of this width is captured
        report["decode"].append(decode_width(llm, width, 1000 * width))
        print(report["decode"][-1], flush=True)
    for length in (128, 2048, 8192):
        times = []
        for again in range(3):
            began = time.monotonic()
            next(
                iter(
                    llm.stream(
                        prompt(50_000 + length + again, length), max_tokens=2, ignore_eos=True
                    )
                )
            )
            times.append(time.monotonic() - began)
        report[f"first_token_{length}_s"] = round(statistics.median(times), 4)
    return report | check_cancel(llm)


def wait_for_memory(target: int) -> int:
    """Bytes in use once they are near `target`, or after ten seconds."""
    deadline = time.monotonic() + 10
    while gpu_used() > target + 2**28 and time.monotonic() < deadline:
        time.sleep(0.2)
    return gpu_used()


def check_demo() -> dict[str, Any]:
    """The embedded model's greedy answers on CPU and GPU in float32: compared and counted."""
    questions = [
        "What is 17 + 25?",
        "How do I stop a running cell?",
        "Write a tiny story about a robot.",
    ]
    answers = []
    for device in ("cpu", "cuda"):
        llm = llmkernel.start(
            name=f"demo-{device}", device=device, dtype="float32", quantization="none"
        )
        try:
            turns = [[{"role": "user", "content": question}] for question in questions]
            chats = [llm.chat(turn, temperature=0, max_tokens=120).text for turn in turns]
            drawn = llm.generate("Once upon a time", max_tokens=60, temperature=0.8, seed=7).text
            answers.append([*chats, drawn])
        finally:
            llm.stop()
    same = sum(a == b for a, b in zip(*answers, strict=True))
    return {"demo_cpu_equals_gpu": f"{same} of {len(answers[0])}", "answers": answers[1]}


def main() -> None:
    """Run the checks and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--save", type=Path)
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--skip-large", action="store_true")
    parser.add_argument("--skip-demo", action="store_true")
    arguments = parser.parse_args()
    import bitsandbytes
    import torch
    import transformers

    report: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%d"),
        "device": torch.cuda.get_device_name(),
        "versions": {
            m.__name__: m.__version__ for m in (torch, transformers, bitsandbytes, llmkernel)
        },
    }
    if not arguments.skip_demo:
        report |= check_demo()
    if not arguments.skip_large:
        report |= check_large(arguments.layers)
    text = json.dumps(report, indent=2)
    print(text)
    if arguments.save:
        arguments.save.write_text(text + "\n")


if __name__ == "__main__":
    main()
