"""Numbers on a command line, which are numbers: `nan` is below and above no bound, and `inf`
seconds are no time that anything can wait for."""

from __future__ import annotations

import math
from typing import Any

import click
from click.types import FloatParamType


class Finite(FloatParamType):
    """A float of any size."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Raises click's BadParameter."""
        return _finite(self, super().convert(value, param, ctx), param, ctx)


class FiniteRange(click.FloatRange):
    """A float within bounds."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Raises click's BadParameter."""
        return _finite(self, super().convert(value, param, ctx), param, ctx)


def _finite(
    kind: Finite | FiniteRange,
    value: float,
    param: click.Parameter | None,
    ctx: click.Context | None,
) -> float:
    if not math.isfinite(value):
        kind.fail(f"{value} is not a finite number.", param, ctx)
    return value


FINITE = Finite()
