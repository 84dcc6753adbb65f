"""Two people in one box: what both have typed stays. As panel-js/src/merging.js."""

from __future__ import annotations

from itertools import takewhile


def merged(before: str, mine: str, theirs: str) -> str:
    """A text that became `mine` here and `theirs` elsewhere, with both changes.

    Where they touch the same words, what was written here stands behind what was written there.
    """
    if theirs in (before, mine):  # nearly always: nobody else has written
        return mine
    start, until, text = _change(before, mine)
    other_start, other_until, _ = _change(before, theirs)
    if until <= other_start and start < other_start:
        return theirs[:start] + text + theirs[until:]
    shift = len(theirs) - len(before)
    at = max(start, other_until) + shift
    return theirs[:at] + text + theirs[max(at, until + shift) :]


def _change(before: str, after: str) -> tuple[int, int, str]:
    """What of a text is another: from start to until there is another text now."""
    start = _alike(before, after)
    same = _alike(before[start:][::-1], after[start:][::-1])
    return start, len(before) - same, after[start : len(after) - same]


def _alike(one: str, other: str) -> int:
    """How many characters they begin with in common."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))
