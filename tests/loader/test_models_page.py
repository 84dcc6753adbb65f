"""docs/models.md says what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import llmkernel
from llmkernel import errors
from llmkernel.doctor import NF4_BYTES, SHAPES
from llmkernel.worker.models import FAMILIES

PAGE = (Path(llmkernel.__file__).parents[1] / "docs" / "models.md").read_text()


def rows(heading: str) -> list[list[str]]:
    """The cells of the table below a heading."""
    section = PAGE.split(f"## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip(" `") for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_the_families_are_those_of_the_table() -> None:
    assert rows("Supported families") == [
        [family.name, family.architecture] for family in FAMILIES.values()
    ]


def test_the_sizes_are_those_that_doctor_reckons_with() -> None:
    expected = []
    for shape in SHAPES:
        linear, embedded = shape.linear_weights, 2 * shape.embedding_weights
        sizes = (2 * linear + embedded, linear + embedded, linear * NF4_BYTES + embedded)
        cache = 2 * 2 * shape.layers * shape.kv_heads * shape.head_dim * 1024
        weights = [f"{size / 2**30:.1f} GiB" for size in sizes]
        expected.append([shape.label, shape.example, *weights, f"{cache // 2**20} MiB"])
    assert rows("Choosing one") == expected


def test_every_quantisation_is_explained() -> None:
    from typing import get_args

    from llmkernel.config import Quantization

    assert {row[0] for row in rows("Quantisation")} == set(get_args(Quantization))


def test_the_errors_are_those_of_the_tree() -> None:
    named = {row[0] for row in rows("Where it does not load")}
    loading = {error.__name__ for error in errors.StartFailed.__subclasses__()}
    assert named == loading - {"ConfigurationConflict"}


def test_the_commands_exist() -> None:
    for module in re.findall(r"python -m (llmkernel\.[\w.]+)", PAGE):
        assert (
            (Path(llmkernel.__file__).parents[1] / Path(*module.split(".")))
            .with_suffix(".py")
            .exists()
        )
