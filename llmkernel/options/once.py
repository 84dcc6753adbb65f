"""A command whose options of one value are given once: of two values it cannot tell which is meant."""

from __future__ import annotations

from collections import Counter

import click


class Once(click.Command):
    """A command that refuses what click takes the last of."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As click does it. Raises UsageError for an option of one value that is given again."""
        if ctx.resilient_parsing:  # a line that is only being completed may hold anything
            return super().parse_args(ctx, args)
        _, _, given = self.make_parser(ctx).parse_args(list(args))  # which takes words off its list
        for param, times in Counter(given).items():
            if times > 1 and _has_one_value(param):
                ctx.fail(
                    f"Option {param.get_error_hint(ctx)} takes one value, "
                    f"and was given {times} times."
                )
        return super().parse_args(ctx, args)


def _has_one_value(param: click.Parameter) -> bool:
    return isinstance(param, click.Option) and not (param.multiple or param.count or param.is_flag)
