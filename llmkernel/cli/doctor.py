"""`llmkernel doctor`."""

from __future__ import annotations

import click

from llmkernel.cli import console
from llmkernel.cli.failure import Command
from llmkernel.doctor import KV_TOKENS, Fit, Gpu, Report, examine
from llmkernel.units import size


@click.command("doctor", cls=Command)
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.pass_context
def doctor_command(context: click.Context, as_json: bool) -> None:
    """Say what this machine has and which models fit on it.

    Exit code 1 where something keeps a worker from starting. Needs no torch.
    """
    report = examine()
    if as_json:
        console.json_line(report)
    else:
        _show(report)
    context.exit(0 if report.healthy else 1)


def _show(report: Report) -> None:
    console.line(console.bold("Machine"))
    console.fields(_machine(report))
    console.line()
    console.line(console.bold("Libraries"))
    console.fields(
        (entry.name, " ".join(filter(None, (entry.version or "not installed", entry.problem))))
        for entry in report.libraries
    )
    console.line()
    console.line(console.bold("Models that fit now"))
    console.table(("size", "for example", "at 4 bits", "fits on"), map(_fit, report.fits))
    console.line(f"Counted with room for {KV_TOKENS:,} tokens of keys and values.")
    console.line()
    for problem in report.problems:
        console.line(f"Problem: {problem}")
    if report.healthy:
        console.line("No problem found.")


def _machine(report: Report) -> list[tuple[str, str]]:
    memory = f"{size(report.memory_free_bytes)} free of {size(report.memory_total_bytes)}"
    cache = f"{report.model_cache} ({size(report.model_cache_free_bytes)} free)"
    gpus = [(f"GPU {gpu.index}", _gpu(gpu)) for gpu in report.gpus] or [
        ("GPU", "none; models run on the CPU")
    ]
    return [
        ("llmkernel", report.llmkernel),
        ("Python", report.python),
        ("system", report.platform),
        ("CPU", f"{report.cpu_cores} cores"),
        ("memory", memory),
        *gpus,
        ("model cache", cache),
    ]


def _gpu(gpu: Gpu) -> str:
    free = f"{size(gpu.free_bytes)} free of {size(gpu.total_bytes)}"
    return f"{gpu.name}, {free}, driver {gpu.driver}, compute {gpu.compute_capability}"


def _fit(fit: Fit) -> tuple[str, str, str, str]:
    return fit.label, fit.example, size(fit.needed_bytes), fit.on or "no device here"
