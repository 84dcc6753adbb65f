"""Each kernel of a decoder layer beside what it has to read, and beside bitsandbytes or torch.

    python -m benchmarks.kernels [--save] [--tokens 1,8,32]

Needs a CUDA device. Times are medians of a CUDA graph that runs the kernel over as many copies of
its data as do not fit into the L2, divided by their number: as in a step, everything comes from
memory. The floor is the bytes that a kernel cannot do without, at the bandwidth that a plain read
of 2 GiB reaches in the same run. The kernels run as the worker launches them; which launch plan
is best is the question of `benchmarks.launch_plans`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks import command, gpu, results, tables
from llmkernel.worker.kernels import four_bit, layer, tiles
from llmkernel.worker.kernels.paged_attention import Chunks, DecodeRows, Options, Pool
from llmkernel.worker.kernels.tiles import Packed
from llmkernel.worker.models.attention import roped_attention_for

PAST_CACHE = 250e6
"""Bytes that do not fit into the L2 of any GPU there is."""
BLOCK = 16
GROUP = 64
"""Weights of a scale."""


@dataclass(frozen=True, slots=True)
class LayerShape:
    """A decoder layer: sizes of its matrices [rows, columns] and of its heads."""

    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    layers: int

    @property
    def matrices(self) -> dict[str, tuple[int, int]]:
        """The merged matrices, by what they make."""
        attention = self.heads * self.head_dim
        return {
            "qkv": (attention + 2 * self.kv_heads * self.head_dim, self.hidden),
            "o": (self.hidden, attention),
            "gate_up": (2 * self.intermediate, self.hidden),
            "down": (self.hidden, self.intermediate),
        }


LLAMA_8B = LayerShape(4096, 14336, heads=32, kv_heads=8, head_dim=128, layers=32)
CONTEXTS = ((1, 256), (1, 8192), (8, 256), (8, 2048), (32, 256), (32, 2048))
"""Rows and tokens of each, for attention of decode rows."""
CHUNKS = ((512, 0), (2048, 0), (2048, 6144))
"""Tokens of a chunk, and tokens before it."""


class Row(NamedTuple):
    """One kernel at one size. Times in microseconds; `moved` are the bytes it cannot do without."""

    kernel: str
    size: str
    us: float
    moved: int
    other_us: float | None = None
    other: str = ""


@dataclass(slots=True)
class Bench:
    """Where and how kernels are timed.

    `clock(call)` gives the microseconds of everything that `call` launches; `past` bytes do not
    fit into a cache.
    """

    shape: LayerShape
    device: torch.device
    dtype: torch.dtype = torch.bfloat16
    clock: Callable[[Callable[[], object]], float] = gpu.timed
    past: float = PAST_CACHE
    failures: list[str] = field(default_factory=list)
    """What could not be timed, and why."""

    def copies(self, size: int) -> int:
        """How many things of `size` bytes do not fit into a cache."""
        return max(2, int(self.past / size) + 1)

    def each(self, call: Callable[[Any], object], things: list[Any]) -> float:
        """Microseconds of `call` on one of `things`."""
        return self.clock(lambda: [call(thing) for thing in things]) / len(things)

    def other(self, what: str, call: Callable[[Any], object], things: list[Any]) -> float | None:
        """The same of what others have; None where it does not run here."""
        try:
            return self.each(call, things)
        except RuntimeError as error:
            self.failures.append(f"{what}: {str(error).splitlines()[0]}")
            return None

    def random(self, *size: int) -> Tensor:
        """Normal numbers of these sizes."""
        return torch.randn(*size, dtype=self.dtype, device=self.device)


def random_matrix(rows: int, columns: int, device: torch.device) -> Packed:
    """Random weights in the packed layout."""
    return tiles.narrow(
        Packed(
            torch.randint(0, 256, (rows * columns // 2,), dtype=torch.uint8, device=device),
            torch.rand(rows // 16, columns // GROUP, 8, 2, device=device) * 0.01,
            tuple(torch.linspace(-1, 1, 16).tolist()),
            rows,
            columns,
        )
    )


def products(bench: Bench, tokens: int) -> Iterator[Row]:
    """The 4-bit products of a layer, and bitsandbytes' on weights of its own."""
    import bitsandbytes

    for name, (rows, columns) in bench.shape.matrices.items():
        x = bench.random(tokens, columns)
        count = bench.copies(rows * columns // 2)
        matrices = [random_matrix(rows, columns, bench.device) for _ in range(count)]
        us = bench.each(partial(four_bit.product, x), matrices)
        moved = matrices[0].weights.nbytes + matrices[0].scales.nbytes
        del matrices
        weight = bench.random(rows, columns)
        theirs = [
            bitsandbytes.functional.quantize_4bit(weight, blocksize=GROUP, quant_type="nf4")
            for _ in range(count)
        ]
        other = bench.other(
            f"bitsandbytes {name}",
            partial(_theirs, x),
            theirs,
        )
        yield Row(name, _tokens(tokens), us, moved, other, "bitsandbytes")


def _theirs(x: Tensor, quantized: tuple[Tensor, Any]) -> Any:
    import bitsandbytes

    product: Any = bitsandbytes.matmul_4bit  # type: ignore[attr-defined]
    return product(x, quantized[0].t(), quant_state=quantized[1])


def decode_attention(bench: Bench, rows: int, context: int) -> Iterator[Row]:
    """Attention of decode rows over pages, and torch's over keys that lie in a row."""
    from llmkernel.worker.kernels.split_attention import split_decode_attention

    shape = bench.shape
    moved = 2 * rows * context * shape.kv_heads * shape.head_dim * bench.dtype.itemsize
    pools = [_pool(bench, rows * -(-context // BLOCK)) for _ in range(bench.copies(moved))]
    lengths = torch.full((rows,), context, device=bench.device)
    paged = DecodeRows(_tables(bench, rows, context), _slots(bench, rows), lengths, 0)
    query = bench.random(rows, shape.heads, shape.head_dim)
    options = Options(shape.head_dim**-0.5)
    us = bench.each(lambda pool: split_decode_attention(query, pool, paged, options), pools)
    flat = [_in_a_row(pool, rows, context) for pool in pools]
    other = bench.other(
        "torch's attention of decode rows",
        lambda kv: functional.scaled_dot_product_attention(
            query[:, :, None], kv[0], kv[1], enable_gqa=True
        ),
        flat,
    )
    yield Row("decode attention", f"{rows} of {context:,}", us, moved, other, "torch")


def roped_attention(bench: Bench, rows: int, context: int) -> Iterator[Row]:
    """All from merged projections to attention of decode rows in one kernel, where one can, and in three."""
    from llmkernel.worker.kernels.split_attention import split_decode_attention

    roped = roped_attention_for(bench.device)
    if roped is None:
        return
    shape = bench.shape
    moved = 2 * rows * context * shape.kv_heads * shape.head_dim * bench.dtype.itemsize
    pools = [_pool(bench, rows * -(-context // BLOCK)) for _ in range(bench.copies(moved))]
    lengths = torch.full((rows,), context, device=bench.device)
    table = _tables(bench, rows, context)
    paged = DecodeRows(table, _slots(bench, rows), lengths, 0, apart=True)
    places = table[:, (context - 1) // BLOCK] * BLOCK + (context - 1) % BLOCK
    merged = bench.random(rows, (shape.heads + 2 * shape.kv_heads) * shape.head_dim)
    rotary = (bench.random(rows, shape.head_dim), bench.random(rows, shape.head_dim))
    options = Options(shape.head_dim**-0.5)

    def three(pool: Pool) -> Tensor:
        query = layer.rope_write(merged, rotary, pool, places)
        return split_decode_attention(query, pool, paged, options)

    us = bench.each(lambda pool: roped(merged, rotary, pool, places, paged, options, None), pools)
    other = bench.other("three kernels", three, pools)
    yield Row("rotation to attention", f"{rows} of {context:,}", us, moved, other, "three kernels")


def prefill_attention(bench: Bench, tokens: int, before: int) -> Iterator[Row]:
    """Attention of a chunk over pages, and torch's causal one where nothing is before it."""
    from llmkernel.worker.kernels.tiled_attention import tiled_prefill_attention

    shape, context = bench.shape, before + tokens
    pool = _pool(bench, -(-context // BLOCK))
    chunks = Chunks(
        _tables(bench, 1, context),
        _slots(bench, 1),
        torch.tensor([context], device=bench.device),
        torch.tensor([0, tokens], device=bench.device),
        longest=tokens,
        furthest=context,
    )
    query = bench.random(tokens, shape.heads, shape.head_dim)
    options = Options(shape.head_dim**-0.5)
    us = bench.each(lambda one: tiled_prefill_attention(query, one, chunks, options), [pool])
    moved = 2 * context * shape.kv_heads * shape.head_dim * bench.dtype.itemsize
    other = None
    if not before:
        queries = query.transpose(0, 1)[None]
        other = bench.other(
            "torch's attention of a chunk",
            lambda kv: functional.scaled_dot_product_attention(
                queries, kv[0], kv[1], is_causal=True, enable_gqa=True
            ),
            [_in_a_row(pool, 1, context)],
        )
    yield Row("prefill attention", f"{tokens:,} after {before:,}", us, moved, other, "torch")


def small_kernels(bench: Bench, tokens: int) -> Iterator[Row]:
    """Norm, and rotation with the write of keys and values."""
    shape, size = bench.shape, bench.dtype.itemsize
    weight = bench.random(shape.hidden)
    moved = 2 * tokens * shape.hidden * size
    inputs = [bench.random(tokens, shape.hidden) for _ in range(_some(bench, moved))]
    us = bench.each(lambda x: layer.rms_norm(x, weight, 1e-5), inputs)
    other = bench.other(
        "torch's norm", lambda x: functional.rms_norm(x, (shape.hidden,), weight, 1e-5), inputs
    )
    yield Row("norm", _tokens(tokens), us, moved, other, "torch")

    pool = _pool(bench, -(-tokens // BLOCK) + 1)
    slots = torch.arange(tokens, device=bench.device)
    rotary = (bench.random(tokens, shape.head_dim), bench.random(tokens, shape.head_dim))
    width = (shape.heads + 2 * shape.kv_heads) * shape.head_dim
    moved = 2 * tokens * width * size
    inputs = [bench.random(tokens, width) for _ in range(_some(bench, moved))]
    us = bench.each(lambda x: layer.rope_write(x, rotary, pool, slots), inputs)
    yield Row("rotation and write", _tokens(tokens), us, moved)


def measure(bench: Bench, tokens: list[int]) -> Iterator[Row]:
    """Every kernel at every size."""
    for count in tokens:
        yield from products(bench, count)
        yield from small_kernels(bench, count)
    for rows, context in CONTEXTS:
        yield from decode_attention(bench, rows, context)
        yield from roped_attention(bench, rows, context)
    for count, before in CHUNKS:
        yield from prefill_attention(bench, count, before)


def table(rows: list[Row], bandwidth: float) -> list[str]:
    """Lines of Markdown; `bandwidth` in bytes a second."""
    heads = ("kernel", "size", "µs", "GB/s", "of the floor", "the other's µs", "ratio", "other")
    return tables.markdown(
        heads,
        [
            (
                row.kernel,
                row.size,
                row.us,
                row.moved / row.us / 1e3,
                f"{1e6 * row.moved / bandwidth / row.us:.0%}",
                row.other_us,
                row.other_us / row.us if row.other_us else None,
                row.other or None,
            )
            for row in rows
        ],
    )


def layers_ms(rows: list[Row], shape: LayerShape, tokens: int) -> tuple[float, float | None]:
    """Milliseconds of the products of all layers, ours and bitsandbytes'."""
    mine = [row for row in rows if row.kernel in shape.matrices and row.size == _tokens(tokens)]
    others = [row.other_us for row in mine if row.other_us is not None]
    other = shape.layers * sum(others) / 1e3 if len(others) == len(mine) else None
    return shape.layers * sum(row.us for row in mine) / 1e3, other


def _tokens(count: int) -> str:
    return f"{count} token{'s' * (count != 1)}"


def _some(bench: Bench, size: int) -> int:
    """Copies of what is small: a graph of thousands of launches tells no more."""
    return min(bench.copies(size), 64)


def _pool(bench: Bench, blocks: int) -> Pool:
    size = (blocks + 1, BLOCK, bench.shape.kv_heads, bench.shape.head_dim)
    return Pool(bench.random(*size), bench.random(*size))


def _slots(bench: Bench, rows: int) -> Tensor:
    return torch.arange(rows, device=bench.device)


def _tables(bench: Bench, rows: int, context: int) -> Tensor:
    """Block ids [rows, blocks] of rows that lie anywhere in a pool."""
    width = -(-context // BLOCK)
    return torch.randperm(rows * width, device=bench.device).view(rows, width)


def _in_a_row(pool: Pool, rows: int, context: int) -> tuple[Tensor, Tensor]:
    """As much of a pool as [rows, kv_heads, context, head_dim], which is how torch has it."""

    def flat(one: Tensor) -> Tensor:
        tokens = one.flatten(0, 1)[: rows * context]
        return tokens.view(rows, context, *one.shape[2:]).transpose(1, 2).contiguous()

    return flat(pool.keys), flat(pool.values)


def main() -> None:
    """Time everything, print the table and, where asked, keep it."""
    parser = command.parser(__doc__)
    parser.add_argument(
        "--tokens", type=command.numbers, default=[1, 8, 32],
        help="rows of the products (default: 1,8,32)",
    )  # fmt: skip
    arguments = parser.parse_args()
    gpu.needed()
    tokens = arguments.tokens
    bench = Bench(LLAMA_8B, torch.device("cuda"))
    bandwidth = gpu.read_bandwidth()
    print(f"a plain read: {bandwidth / 1e12:.2f} TB/s")
    rows = []
    for row in measure(bench, tokens):
        print(row, flush=True)
        rows.append(row)
    print("", *table(rows, bandwidth), "", sep="\n")
    summed = {count: layers_ms(rows, LLAMA_8B, count) for count in tokens}
    for count, (ours, theirs) in summed.items():
        said = "-" if theirs is None else f"{theirs:.2f}"
        print(f"products of all layers, {_tokens(count)}: {ours:.2f} ms; bitsandbytes {said}")
    print(*bench.failures, sep="\n")
    if arguments.save:
        figures = {
            "read_bytes_per_second": round(bandwidth),
            "rows": [row._asdict() for row in rows],
            "layers_ms": {str(count): pair for count, pair in summed.items()},
            "failures": bench.failures,
        }
        print(results.save("kernels", figures, "", arguments.save))


if __name__ == "__main__":
    command.run(main)
