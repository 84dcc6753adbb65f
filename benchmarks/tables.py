"""Figures as a Markdown table, padded so that a terminal shows it well too."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

Cell = str | float | None


def markdown(heads: Sequence[str], rows: Iterable[Sequence[Cell]]) -> list[str]:
    """Its lines. All columns but the first are numbers; what is not there is a dash."""
    texts = [list(heads), *([cell(value) for value in row] for row in rows)]
    widths = [max(3, *map(len, column)) for column in zip(*texts, strict=True)]
    lines = [_line(text, widths) for text in texts]
    rule = [f"{'-' * (width - 1)}:" for width in widths]
    rule[0] = "-" * widths[0]
    return [lines[0], _line(rule, widths), *lines[1:]]


def cell(value: Cell) -> str:
    """Three digits of a number below a hundred, whole numbers above; text as it is."""
    match value:
        case None:
            return "-"
        case str():
            return value
        case float() if 0 < abs(value) < 100:
            return f"{value:.3g}"
    return f"{value:,.0f}"


def _line(texts: Sequence[str], widths: Sequence[int]) -> str:
    first, *others = zip(texts, widths, strict=True)
    padded = [first[0].ljust(first[1]), *(text.rjust(width) for text, width in others)]
    return f"| {' | '.join(padded)} |"
