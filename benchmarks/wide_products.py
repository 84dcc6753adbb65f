"""Products of 16 to 64 tokens by warpgroups, every plan of `kernels/wide.py`, beside four_bit_many.

python -m benchmarks.wide_products
"""

from __future__ import annotations

import contextlib
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch

from benchmarks.gpu import timed
from benchmarks.kernels import LLAMA_8B, PAST_CACHE, random_matrix
from llmkernel.worker.kernels import four_bit, plans, wide


def main() -> None:
    """Time and print."""
    device = torch.device("cuda")
    for tokens in (32, 64, 16):
        totals = [0.0, 0.0]
        for name, (rows, columns) in LLAMA_8B.matrices.items():
            many = max(2, int(PAST_CACHE / (rows * columns / 2)) + 1)
            matrices = [random_matrix(rows, columns, device) for _ in range(many)]
            x = torch.randn(tokens, columns, dtype=torch.bfloat16, device="cuda")
            y = wide.arrange(x)
            expected = four_bit.many_product(x, matrices[0]).float()
            before = timed(lambda m=matrices, x=x: [four_bit.many_product(x, one) for one in m])
            tried = wide.wide_plans(matrices[0], tokens, plans.processors(device))

            def compiled(
                plan: Any, y: Any = y, one: Any = matrices[0], tokens: int = tokens
            ) -> None:
                torch.cuda.set_device(0)
                with contextlib.suppress(RuntimeError):
                    wide.wide_product(y, tokens, one, None, plan)

            with ThreadPoolExecutor(16) as threads:
                list(threads.map(compiled, tried))
            found = []
            for plan in tried:
                mine = wide.wide_product(y, tokens, matrices[0], None, plan).float()
                wrong = float((mine - expected).norm() / expected.norm())
                if not wrong < 1e-2:
                    print(f"WRONG {name} {plan}: {wrong}", flush=True)
                    continue
                taken = timed(
                    lambda m=matrices, y=y, p=plan, t=tokens: [
                        wide.wide_product(y, t, one, None, p) for one in m
                    ]
                )
                found.append((taken / many, tuple(plan)))
            found.sort()
            print(tokens, name, f"many {before / many:.2f}", found[:5], flush=True)
            totals = [totals[0] + before / many, totals[1] + found[0][0]]
        ms = [LLAMA_8B.layers * total / 1e3 for total in totals]
        print(f"{tokens} tokens: all layers {ms[0]:.2f} ms, by warpgroups {ms[1]:.2f}", flush=True)


if __name__ == "__main__":
    main()
