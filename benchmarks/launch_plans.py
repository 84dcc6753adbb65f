"""The 4-bit products of the 8B shape: each launch plan timed, the best beside the memory floor.

    python -m benchmarks.launch_plans [--save [FOLDER]] [--tokens 1,8,32]

This is what the default plans of `worker/kernels/plans.py` were chosen by; `benchmarks.kernels`
shows what they give.

Needs a CUDA device. The four merged matrices of a layer of the Llama-3.1-8B shape, with as many
copies as do not fit into the L2, one after the other in a CUDA graph. Times are medians. The
floor is the bytes of the packed weights at the bandwidth that a plain read of as many bytes
reaches in the same run.
"""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks import command, gpu, results
from benchmarks.gpu import read_bandwidth, timed
from benchmarks.kernels import LLAMA_8B, PAST_CACHE, random_matrix
from llmkernel.worker.kernels import four_bit, plans
from llmkernel.worker.kernels.plans import FewPlan, ManyPlan, RingPlan
from llmkernel.worker.kernels.tiles import Packed

_ROW_TILES, _K_WARPS, _PARTS = (1, 2, 3, 4, 6, 7, 8), (1, 2, 3, 4, 6, 8, 12, 16), range(1, 9)
"""Of a warp, of a block, of a matrix."""
_FULL = 0.83
"""Part of the multiprocessors that a plan must have busy."""


def many_plans(rows: int, columns: int, count: int) -> list[ManyPlan]:
    """Plans that fill the multiprocessors once, with 8 to 16 warps on each."""
    processors = plans.processors(torch.device("cuda"))
    tokens, found, down = plans.token_tiles(count), [], rows // 16
    for tiles, row_warps, k_warps, parts, depth in itertools.product(
        _ROW_TILES, range(1, 9), _K_WARPS, _PARTS, (1, 2)
    ):
        warps, blocks = row_warps * k_warps, -(-down // (tiles * row_warps)) * parts
        registers = 4 * tiles * tokens + 8 * tokens + 6 * tiles * depth + 36
        fits = 8 <= warps <= 16 and registers * warps <= 2048
        full = _FULL * processors <= blocks <= processors
        if down % tiles or not fits or not full or k_warps > columns // 64 // parts:
            continue
        for stages in (4, 3, 2):
            plan = ManyPlan(row_warps, k_warps, tiles, depth, stages, 1, parts)
            if plan.shared(tokens) < 226 * 1024:
                found.append(plan)
                break
    return found


def few_plans(columns: int) -> list[FewPlan]:
    """Plans that cover `columns` and waste little."""
    across = columns // 64
    found = []
    for (tiles, ahead, blocks), parts in itertools.product(
        [(8, 4, 2), (8, 2, 2), (4, 4, 2), (4, 2, 2), (4, 4, 1), (4, 2, 1), (2, 2, 2), (4, 4, 3)],
        (1, 2, 3, 4, 7, 8),
    ):
        per = -(-across // parts)
        warps = -(-per // tiles)
        most = {1: 16, 2: 16 if tiles == 2 else 8, 3: 5}[blocks]
        if 4 <= warps <= most and warps * tiles < per * 1.15:
            found.append(FewPlan(warps, tiles, ahead, blocks, parts))
    return found


def ring_plans(columns: int) -> list[RingPlan]:
    """Plans that cover `columns` and waste little."""
    across, found = columns // 64, []
    for tiles, parts, stages in itertools.product((2, 4, 7), (1, 2, 3, 4, 7, 8), (1, 2, 3, 4)):
        per = math.ceil(across / parts)
        plan = RingPlan(math.ceil(per / tiles), tiles, stages, parts)
        covers = 4 <= plan.warps <= 16 and plan.warps * tiles < per * 1.15
        if covers and plan.shared(64, offsets=False) <= 227 * 1024:
            found.append(plan)
    return found


def best_plan(
    matrices: list[Packed], x: Tensor, plans: list[Any], product: Callable[..., Tensor]
) -> tuple[float, Any]:
    """Microseconds a product of the quickest plan, and the plan."""
    found = []
    with ThreadPoolExecutor(16) as threads:  # compiling is most of the time
        list(threads.map(lambda plan: _compiled(x, matrices[0], plan, product), plans))
    for plan in plans:
        try:
            taken = timed(partial(_each, product, x, matrices, plan))
        except RuntimeError as error:  # more registers or shared memory than there are
            print(f"  {plan}: {error}"[:150])
            continue
        found.append((taken / len(matrices), plan))
    found.sort()
    print("  ", *(f"{us:.2f} {tuple(plan)}" for us, plan in found[:6]))
    return found[0]


def _each(product: Callable[..., Tensor], x: Tensor, matrices: list[Packed], *plan: Any) -> None:
    for one in matrices:
        product(x, one, None, *plan)


def _compiled(x: Tensor, matrix: Packed, plan: Any, product: Callable[..., Tensor]) -> None:
    torch.cuda.set_device(0)
    with contextlib.suppress(RuntimeError):
        product(x, matrix, None, plan)


def main() -> None:
    """Time every plan and print the best."""
    parser = command.parser(__doc__)
    parser.add_argument(
        "--tokens", type=command.numbers, default=[1, 8, 32], help="default: 1,8,32"
    )
    arguments = parser.parse_args()
    gpu.needed()
    report: dict[str, Any] = {"rows": []}
    device = torch.device("cuda")
    bandwidth = read_bandwidth() / 1e12
    report["read_tb_s"] = round(bandwidth, 2)
    print(f"a plain read: {bandwidth:.2f} TB/s")
    for tokens in arguments.tokens:
        best = total = floor = 0.0
        for name, (rows, columns) in LLAMA_8B.matrices.items():
            count = max(2, int(PAST_CACHE / (rows * columns / 2)) + 1)
            matrices = [random_matrix(rows, columns, device) for _ in range(count)]
            x = torch.randn(tokens, columns, dtype=torch.bfloat16, device="cuda")
            taken, plan = best_plan(
                matrices, x, many_plans(rows, columns, tokens), four_bit.many_product
            )
            if tokens <= plans.FEW_TOKENS:
                few = best_plan(matrices, x, few_plans(columns), four_bit.few_product)
                taken, plan = min((taken, plan), few)
            if tokens <= plans.FEW_TOKENS and (rings := ring_plans(columns)):
                taken, plan = min(
                    (taken, plan), best_plan(matrices, x, rings, four_bit.ring_product)
                )
            chosen = timed(partial(_each, four_bit.product, x, matrices)) / count
            size = matrices[0].weights.nbytes + matrices[0].scales.nbytes
            row = {
                "tokens": tokens,
                "matrix": name,
                "us": round(taken, 2),
                "tb_s": round(size / taken / 1e6, 2),
                "plan": list(plan),
                "default_us": round(chosen, 2),
            }
            report["rows"].append(row)
            print(row, flush=True)
            best, total, floor = best + taken, total + chosen, floor + size / bandwidth / 1e6
        print(
            f"{tokens} tokens: {LLAMA_8B.layers} layers {LLAMA_8B.layers * best / 1e3:.2f} ms by the best plans, "
            f"{LLAMA_8B.layers * total / 1e3:.2f} by the default ones, floor {LLAMA_8B.layers * floor / 1e3:.2f} ms",
            flush=True,
        )
        report[f"layers_ms_{tokens}"] = round(LLAMA_8B.layers * total / 1e3, 3)
    if arguments.save:
        print(results.save("launch_plans", report, "", arguments.save))


if __name__ == "__main__":
    command.run(main)
