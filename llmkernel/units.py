"""Numbers for people: bytes, counts, durations."""

from __future__ import annotations


def size(count: int | None) -> str:
    """Bytes for people: "1.5 GB"; "-" for None."""
    if count is None:
        return "-"
    amount = float(count)
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if amount < 1000 or unit == "TB":
            return (
                f"{amount:.0f} {unit}" if amount >= 100 or unit == "B" else f"{amount:.1f} {unit}"
            )
        amount /= 1000
    raise AssertionError("the loop returns")


def number(count: int) -> str:
    """Parameters and the like for people: "8.0 B", "124 M"."""
    for limit, unit in ((10**9, "B"), (10**6, "M"), (10**3, "k")):
        if count >= limit:
            value = count / limit
            return f"{value:.0f} {unit}" if value >= 100 else f"{value:.1f} {unit}"
    return str(count)


def count(number: int, what: str) -> str:
    """So many things: "1 token", "2 tokens"."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def duration(seconds: float) -> str:
    """Seconds for people: "4 s", "3 min", "5 h 12 min", "2 d 3 h"."""
    whole = int(seconds)
    if whole < 120:
        return f"{whole} s"
    minutes, hours, days = whole // 60, whole // 3600, whole // 86400
    if hours < 2:
        return f"{minutes} min"
    if days < 2:
        return f"{hours} h {minutes % 60} min"
    return f"{days} d {hours % 24} h"
