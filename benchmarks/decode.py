"""Tokens/s of a 4-bit model at each width, through the real client, beside transformers' `generate`.

    python -m benchmarks.decode [--shape NAME] [--batch 1,2,4,…] [--skip-baseline] [--save]

A checkpoint of the shape with random bfloat16 weights is built in a temporary folder, or in
`--folder`, where it is kept. A worker serves it in NF4 with blocks of 64; so many greedy streams of
one length are read at once (client → worker → client, text delivered). Before each width is
measured, a round of it warms up, so that graphs are captured. Then transformers' own `generate`
answers as one padded batch over bitsandbytes' layers, in a process of its own.

Tokens/s are of all streams together while all of them decode, without the first eighth of that
time; "with prompts" counts from the first request to the last token. The floor is the time that
reading the 4-bit weights with their scales, as bitsandbytes keeps them, and the bfloat16 output
head takes, at what a plain read reaches on this GPU in this run; keys and values are not counted.
"""

from __future__ import annotations

import argparse
import math
import statistics
from pathlib import Path
from typing import Any

import msgspec

from benchmarks import apart, command, gpu, results, serving, streams, tables
from benchmarks.prompts import Prompts
from benchmarks.shapes import Shape
from benchmarks.streams import Rates
from llmkernel.client import Client

PEERS = {
    "llama.cpp Q4_K_M": {1: 293, 8: 999, 32: 3362},
    "vLLM 0.22.1 GPTQ int4": {1: 262, 8: 2037, 32: 7069},
    "vLLM 0.22.1 bitsandbytes": {1: 182, 8: 652, 32: 2475},
}
"""Tokens/s measured before on the shape and the GPU of PEERS_ON, with prompts of 128 tokens."""
PEERS_ON = ("llama-3.1-8b", "h200")
STEP_TOKENS = 512
"""Tokens computed in one step at most: the setting's default."""
_LENGTHS = ("prompt_tokens", "new_tokens", "repeats", "baseline_new_tokens")


def warm_tokens(width: int, prompt_tokens: int) -> int:
    """Tokens of an answer long enough that all streams of a width decode at the same time."""
    room = max(STEP_TOKENS - width, STEP_TOKENS // 2)
    return 16 + 2 * width * prompt_tokens // room


def measure(client: Client, vocabulary: int, arguments: argparse.Namespace) -> dict[int, Rates]:
    """The medians of each width, over the repeats."""
    prompts = Prompts(vocabulary)
    found = {}
    for width in arguments.batch:
        warm = min(warm_tokens(width, arguments.prompt_tokens), arguments.new_tokens)
        streams.together(client, prompts.several(width, arguments.prompt_tokens), warm)
        rounds = [
            streams.rates(
                streams.together(
                    client,
                    prompts.several(width, arguments.prompt_tokens),
                    arguments.new_tokens,
                )
            )
            for _ in range(arguments.repeats)
        ]
        found[width] = Rates(*(statistics.median(column) for column in zip(*rounds, strict=True)))
        print(f"batch {width:3}: {_line(found[width])}", flush=True)
    return found


def check_room(client: Client, arguments: argparse.Namespace) -> None:
    """Raise Refused where the cache cannot hold all streams of the widest batch at once."""
    model = client.status().model
    assert model is not None, "it is ready"
    width, longest = max(arguments.batch), arguments.prompt_tokens + arguments.new_tokens
    # keys and values of a last token are never read; a block is nobody's
    needed = width * math.ceil((longest - 1) / model.block_size) + 1
    if needed > model.kv_blocks:
        mebibytes = math.ceil(needed * model.kv_cache_bytes / model.kv_blocks / 2**20) + 1
        raise command.Refused(
            f"{width} streams of {longest} tokens do not fit the cache for keys and values at the "
            f"same time. Give --kv-cache {mebibytes}MiB, or a smaller --batch."
        )


def baseline(folder: Path, vocabulary: int, arguments: argparse.Namespace) -> dict[int, Rates]:
    """transformers' rates at the widths that are asked for, measured in another process."""
    from benchmarks import transformers_baseline

    widths = arguments.baseline_batch
    print(
        f"\ntransformers' generate over bitsandbytes, {arguments.baseline_new_tokens} new tokens "
        f"instead of {arguments.new_tokens}, at batch {', '.join(map(str, widths))}",
        flush=True,
    )
    lengths = (arguments.prompt_tokens, arguments.baseline_new_tokens)
    rows = apart.call(transformers_baseline.measure, folder, vocabulary, widths, *lengths)
    found = {width: streams.rates(one) for width, one in rows.items()}
    for width, one in found.items():
        print(f"batch {width:3}: {_line(one)}")
    return found


def floor(shape: Shape) -> dict[str, float]:
    """Bytes that a step must read, and on a GPU how many a second it reads at best."""
    from llmkernel.worker import memory

    model: Any = memory.empty_model(shape.config())
    head = model.get_output_embeddings()
    weights = sum(
        module.weight.numel()
        for module in model.modules()
        if hasattr(module, "in_features") and module is not head
    )
    # half a byte each, and a scale of four bytes for 64 of them
    needed = weights * (0.5 + 4 / 64) + 2 * head.weight.numel()
    bandwidth = apart.call(gpu.read_bandwidth) if serving.on_gpu() else 0.0
    return {"bytes": needed, "bytes_per_second": bandwidth}


def table(
    ours: dict[int, Rates],
    theirs: dict[int, Rates],
    least: dict[str, float],
    peers: dict[str, dict[int, int]],
) -> list[dict[str, float | None]]:
    """Print a row for each width and return them."""
    widths = sorted(ours.keys() | theirs.keys())
    rows = [_row(width, ours.get(width), theirs.get(width), least) for width in widths]
    cells = [
        (*row.values(), *(by_width.get(width) for by_width in peers.values()))
        for width, row in zip(widths, rows, strict=True)
    ]
    heads = ("streams", "llmkernel", "with prompts", "transformers", "ratio", "of the floor")
    print("", *tables.markdown((*heads, *peers), cells), sep="\n")
    return rows


def _row(
    width: int, ours: Rates | None, theirs: Rates | None, least: dict[str, float]
) -> dict[str, float | None]:
    speed = ours.tokens_per_second if ours else None
    peer = theirs.tokens_per_second if theirs else None
    bandwidth = least["bytes_per_second"]
    return {
        "batch": width,
        "tokens_per_second": speed,
        "whole_per_second": ours.whole_per_second if ours else None,
        "transformers_per_second": peer,
        "ratio": speed / peer if speed and peer else None,
        "share_of_floor": speed / width * least["bytes"] / bandwidth
        if speed and bandwidth
        else None,
    }


def _line(one: Rates) -> str:
    return (
        f"{one.tokens_per_second:8.1f} tokens/s, {one.whole_per_second:8.1f} with prompts; "
        f"first token {1e3 * one.first_token_s:.1f} ms, "
        f"gaps p50 {one.gap_p50_ms:.2f} ms, p99 {one.gap_p99_ms:.2f} ms"
    )


def _arguments(given: list[str] | None) -> argparse.Namespace:
    parser = serving.parser(__doc__)
    numbers = command.numbers
    parser.add_argument("--batch", type=numbers, default=[1, 2, 4, 8, 16, 32, 64, 128])
    parser.add_argument("--prompt-tokens", type=command.positive, default=128)
    parser.add_argument("--new-tokens", type=command.positive, default=256)
    parser.add_argument(
        "--repeats", type=command.positive, default=1, help="rounds of each width (default: 1)"
    )
    parser.add_argument("--skip-baseline", action="store_true")
    parser.add_argument(
        "--baseline-batch", type=numbers, help="default: those of 1, 8 and 32 that are in --batch"
    )
    parser.add_argument("--baseline-new-tokens", type=command.positive, default=64)
    arguments = parser.parse_args(given)
    if arguments.new_tokens < 2:
        parser.error("--new-tokens: a rate needs 2 at least")
    if arguments.baseline_batch is None:
        some = [width for width in (1, 8, 32) if width in arguments.batch]
        arguments.baseline_batch = some or arguments.batch[:1]
    return arguments


def main(given: list[str] | None = None) -> None:
    """Measure, print and, where asked, keep the figures."""
    arguments = _arguments(given)
    shape = serving.shape(arguments)
    longest = arguments.prompt_tokens + arguments.new_tokens
    asked = serving.settings(arguments, context_length=longest, max_concurrent=max(arguments.batch))
    with serving.checkpoint(shape, arguments.folder) as folder:
        least = floor(shape)
        with serving.worker(folder, asked) as client:
            print(
                f"{shape.name}: {arguments.prompt_tokens} tokens of prompt, "
                f"{arguments.new_tokens} of answer",
                flush=True,
            )
            check_room(client, arguments)
            ours = measure(client, shape.vocabulary, arguments)
            model = client.status().model
        theirs = {} if arguments.skip_baseline else baseline(folder, shape.vocabulary, arguments)
    peers = PEERS if (shape.name, results.device_name(results.machine())) == PEERS_ON else {}
    figures = {
        "shape": shape.name,
        "settings": asked | {name: getattr(arguments, name) for name in _LENGTHS},
        "model": msgspec.to_builtins(model) | {"model": shape.name},
        "floor": least,
        "rows": table(ours, theirs, least, peers),
        "llmkernel": {width: one._asdict() for width, one in ours.items()},
        "transformers": {width: one._asdict() for width, one in theirs.items()},
        "peers": peers,
    }
    if arguments.save:
        print(results.save("decode", figures, shape.name, arguments.save))


if __name__ == "__main__":
    command.run(main)
