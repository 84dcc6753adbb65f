"""What docs/performance.md says of each kind of record: lines of Markdown, and plots."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from benchmarks import results, tables
from benchmarks.svg_plot import Line, drawn

Record = dict[str, Any]
Images = dict[str, str]
"""SVG by file name."""

KERNELS = (
    ("4-bit products", r"four_bit"),
    ("rotation, KV write and attention", r"cluster_attention|attend_part|join_parts|rope_write"),
    ("norms", r"rms_norm"),
    ("output head and other products", r"gemm|gemv|nvjet|cutlass|cublas"),
    ("copies", r"memcpy|memset"),
)
"""Which kernels of a step are counted together: the first pattern that is found in the name."""
OTHER = "all other kernels"


def _origin(record: Record) -> str:
    versions = record["versions"]
    switches = ", ".join(f"{name}={value}" for name, value in record["switches"].items())
    shape = f"**{record['shape']}**, " if "shape" in record else ""
    return (
        f"{shape}{_hardware(record['machine'])}, torch {versions['torch']}, "
        f"transformers {versions['transformers']}, bitsandbytes {versions['bitsandbytes']}, "
        f"{record['date']}{', ' if switches else ''}{switches}:"
    )


def _hardware(machine: Record) -> str:
    if not machine["gpus"]:
        return f"{machine['processor']}, {machine['cores']} cores"
    gpu = machine["gpus"][0]
    return f"{gpu['name']} (driver {gpu['driver']})"


def decode(record: Record, images: Images) -> Iterator[str]:
    """Tokens/s of each width, and the plot of them."""
    peers = record["peers"]
    heads = (
        "streams",
        "llmkernel",
        "with prompts",
        "transformers",
        "ratio",
        "of the floor",
        *peers,
    )
    rows = []
    for row in record["rows"]:
        share = row["share_of_floor"]
        rows.append(
            (
                str(row["batch"]),
                row["tokens_per_second"],
                row["whole_per_second"],
                row["transformers_per_second"],
                row["ratio"],
                None if share is None else f"{share:.0%}",
                *(by_width.get(str(row["batch"])) for by_width in peers.values()),
            )
        )
    name = f"decode-{record['shape']}-{results.device_name(record['machine'])}.svg"
    images[name] = _plot(record)
    yield _origin(record)
    yield ""
    yield from tables.markdown(heads, rows)
    yield ""
    yield f"![Tokens per second by streams, {record['shape']}](images/{name})"


def _plot(record: Record) -> str:
    def points(name: str) -> list[tuple[float, float]]:
        return [(row["batch"], row[name]) for row in record["rows"] if row[name]]

    lines = [
        Line("llmkernel", points("tokens_per_second")),
        Line("transformers + bitsandbytes", points("transformers_per_second")),
        *(
            Line(name, [(int(width), speed) for width, speed in by_width.items()], dashed=True)
            for name, by_width in record["peers"].items()
        ),
    ]
    floor = record["floor"]
    if floor["bytes_per_second"]:
        steps = floor["bytes_per_second"] / floor["bytes"]
        widths = [row["batch"] for row in record["rows"]]
        lines.append(Line("memory floor", [(x, x * steps) for x in widths], dashed=True))
    title = f"{record['shape']}, {record['machine']['gpus'][0]['name']}"
    return drawn(title, "streams", "tokens/s, all streams", [line for line in lines if line.points])


def latency(record: Record, _images: Images) -> Iterator[str]:
    """First tokens and gaps."""
    gaps, again = record["gaps"], record["repeated"]
    arriving = f"{gaps['streams']} streams while {gaps['arriving_tokens']:,} tokens arrive"
    rows = [
        (
            f"first token, {one['prompt_tokens']:,} tokens of prompt",
            1e3 * one["median_s"],
            1e3 * one["worst_s"],
        )
        for one in record["first_token"]
    ]
    known = f"first token, {again['prompt_tokens']:,} tokens that the cache knows"
    rows.append((known, 1e3 * again["again_s"], None))
    yield _origin(record)
    yield ""
    yield from tables.markdown(("idle worker", "median ms", "worst ms"), rows)
    yield ""
    yield from tables.markdown(
        ("gaps between tokens", "p50 ms", "p99 ms"),
        [
            (f"{gaps['streams']} streams", gaps["quiet"]["p50_ms"], gaps["quiet"]["p99_ms"]),
            (arriving, gaps["arriving"]["p50_ms"], gaps["arriving"]["p99_ms"]),
        ],
    )
    yield ""
    yield (
        f"Those {gaps['arriving_tokens']:,} tokens have their first one after {tables.cell(gaps['first_token_s'])} s. The p99 of those gaps is {tables.cell(gaps['arriving']['p99_ms'] / gaps['arriving']['p50_ms'])} times their "
        f"p50, and {tables.cell(gaps['p99_over_quiet_p50'])} times the p50 of the undisturbed ones. A known prompt of {again['prompt_tokens']:,} tokens is answered "
        f"{tables.cell(again['times_sooner'])} times sooner than an unknown one."
    )


def startup(record: Record, _images: Images) -> Iterator[str]:
    """Seconds of each start by stages, and the memory."""
    names = list(
        dict.fromkeys([*record["first_start"]["seconds"], *record["second_start"]["seconds"]])
    )
    attach = {"import": record["attach"]["imported"]}
    attach["start"] = record["attach"]["ready"] - attach["import"]
    attach["first token"] = record["attach"]["first_token"] - record["attach"]["ready"]
    rows = [
        (
            name,
            *(one["seconds"].get(name) for one in (record["first_start"], record["second_start"])),
            attach.get(name),
        )
        for name in names
    ]
    total = [record[one]["first_token"] for one in ("first_start", "second_start", "attach")]
    yield _origin(record)
    yield ""
    yield from tables.markdown(
        ("seconds", "first start", "second start", "attach"), [*rows, ("all", *total)]
    )
    if "memory" in record:
        yield ""
        yield from _memory(record["memory"])


def _memory(found: Record) -> Iterator[str]:
    names = ("used_bytes", "weights_bytes", "kv_cache_bytes", "beyond_bytes")
    rows = [
        (
            one.replace("_", " "),
            *(found[one][name] / 2**30 for name in names),
            f"{found[one]['share_beyond']:.1%}",
        )
        for one in ("after_start", "after_streams")
    ]
    yield from tables.markdown(
        ("GiB on the device", "used", "weights", "keys and values", "beyond", "of both"), rows
    )
    yield ""
    yield f"After its end {found['after_stop_bytes'] / 2**30:.2f} GiB were left."


def step(record: Record, _images: Images) -> Iterator[str]:
    """The budget of a step: microseconds by kind of kernel."""
    widths = record["rows"]
    terms = {name: [0.0] * len(widths) for name in (*(name for name, _ in KERNELS), OTHER)}
    for column, one in enumerate(widths):
        for kernel in one["kernels"]:
            terms[_term(kernel["kernel"])][column] += kernel["own_us"]
    rows: list[tuple[tables.Cell, ...]] = [(name, *times) for name, times in terms.items()]
    rows.append(("all kernels", *(one["own_us"] for one in widths)))
    rows.append(("**one step**", *(one["step_us"] for one in widths)))
    busy = (one["own_us"] / one["profiled_us"] for one in widths)
    rows.append(("GPU busy", *(f"{share:.0%}" for share in busy)))
    yield _origin(record)
    yield ""
    heads = ("µs of a step", *(f"batch {one['width']}" for one in widths))
    yield from tables.markdown(heads, rows)
    yield ""
    yield (
        "A kernel counts from the end of all that began before it to its own end. The profiler makes steps a"
        " little longer, so that kernels may add up to more than the step without it; busy is their share of"
        " the steps with it, and the rest gaps between kernels and work of the host that nothing hides."
    )


def _term(kernel: str) -> str:
    found = (name for name, pattern in KERNELS if re.search(pattern, kernel, re.IGNORECASE))
    return next(found, OTHER)


def kernels(record: Record, _images: Images) -> Iterator[str]:
    """Each kernel of a layer beside the floor and beside what others have."""
    bandwidth = record["read_bytes_per_second"]
    rows = [
        (
            row["kernel"], row["size"], row["us"], row["moved"] / row["us"] / 1e3,
            f"{1e6 * row['moved'] / bandwidth / row['us']:.0%}",
            row["other_us"], row["other"] if row["other_us"] else None,
        )
        for row in record["rows"]
    ]  # fmt: skip
    yield _origin(record)
    yield ""
    heads = ("kernel", "size", "µs", "GB/s", "of the floor", "the other's µs", "other")
    yield from tables.markdown(heads, rows)


def gpu_checks(record: Record, _images: Images) -> Iterator[str]:
    """How exact logits and answers of 4-bit models are."""
    found = record["accuracy"]
    yield f"{found['dtype']}, answers of {found['new_tokens']} tokens, {_origin(record)}"
    yield ""
    heads = ("model", "relative error", "bitsandbytes'", "equal", "until they part", "choices")
    shares = ("equal", "until_parting", "choices")
    yield from tables.markdown(
        heads,
        [
            (
                one["name"], f"{one['error']:.2%}", f"{one['bitsandbytes_error']:.2%}",
                *(f"{one[share]:.0%}" for share in shares),
            )
            for one in found["cases"]
        ],
    )  # fmt: skip


def batching(record: Record, _images: Images) -> Iterator[str]:
    """Tokens/s on the processor beside `generate`, and what a token costs beside the model."""
    heads = ("streams", "worker", "`generate`, one batch", "`generate`, one by one", "share")
    names = ("worker", "batched", "one_by_one", "worker_over_batched")
    speeds = [
        (str(row["streams"]), *(row[name] for name in names)) for row in record["tokens_per_second"]
    ]
    costs = [
        (row["case"], str(row["streams"]), row["token_us"], row["forward_us"])
        for row in record["overhead"]["rows"]
    ]
    yield f"{record['parameters'] / 1e6:.1f} M parameters, {_origin(record)}"
    yield ""
    yield from tables.markdown(heads, speeds)
    yield ""
    yield from tables.markdown(
        ("µs of the processor per token", "streams", "worker", "forward pass"), costs
    )


def gateway(record: Record, _images: Images) -> Iterator[str]:
    """Streams over HTTP beside the same over ZeroMQ."""
    names = (
        "zeromq_tokens_per_second", "http_tokens_per_second", "share", "zeromq_first_token_ms",
        "http_first_token_ms", "longest_block_ms",
    )  # fmt: skip
    yield f"A step of {record['step_ms']:g} ms without a model, {_origin(record)}"
    yield ""
    yield from tables.markdown(
        ("streams", "tokens/s, ZeroMQ", "HTTP", "share", "first token ms, ZeroMQ", "HTTP",
         "longest block ms"),
        [(str(row["streams"]), *(row[name] for name in names)) for row in record["widths"]],
    )  # fmt: skip


SECTIONS: dict[str, Callable[[Record, Images], Iterator[str]]] = {
    "decode": decode,
    "latency": latency,
    "startup": startup,
    "step_profile": step,
    "kernels": kernels,
    "gpu_checks": gpu_checks,
    "batching": batching,
    "gateway": gateway,
}
"""By the name of the benchmark."""
