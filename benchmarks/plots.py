"""The figures that are kept, as tables and plots in docs/performance.md.

    python -m benchmarks.plots
    python -m benchmarks.plots --check

Of each benchmark, shape and GPU the newest file of benchmarks/results counts; what was measured
without a GPU is shown where it is about the processor. Between its two markers each section of the page is replaced, and
docs/images has a plot for each table of widths. `--check` only says whether that is so already.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import NamedTuple

from benchmarks import results
from benchmarks.sections import SECTIONS, Record

DOCS = Path(__file__).parent.parent / "docs"


class Page(NamedTuple):
    """What is generated: the text of the page, and plots by file name."""

    text: str
    images: dict[str, str]


def page(text: str, found: list[Record]) -> Page:
    """`text` with what stands between the markers made of the records."""
    images: dict[str, str] = {}
    for name, section in SECTIONS.items():
        wanted = [record for record in found if record["benchmark"] == name]
        lines = [line for record in wanted for line in ("", *section(record, images), "")]
        lines = lines or [f"Nothing is kept yet: `python -m benchmarks.{name} --save`."]
        text = _between(text, name, "\n".join(lines).strip("\n"))
    return Page(text, images)


def _between(text: str, name: str, body: str) -> str:
    pattern = rf"(<!-- {name}: [^>]*-->\n).*?(<!-- end -->)"
    changed, count = re.subn(pattern, lambda m: f"{m[1]}{body}\n{m[2]}", text, flags=re.DOTALL)
    assert count == 1, f"docs/performance.md has no place for {name}"
    return changed


def main(arguments: list[str]) -> int:
    """Write or check the page and its plots."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="only say whether they are so already")
    check = parser.parse_args(arguments).check
    target = DOCS / "performance.md"
    made = page(target.read_text(), results.newest())
    wanted = {target: made.text}
    wanted |= {DOCS / "images" / name: image for name, image in made.images.items()}
    stale = [path for path, text in wanted.items() if not path.exists() or path.read_text() != text]
    if not check:
        for path in stale:
            path.write_text(wanted[path])
    elif stale:
        names = ", ".join(path.name for path in stale)
        sys.stderr.write(f"{names}: not what benchmarks/results says. Run: make docs\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
