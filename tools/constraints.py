"""Write constraints.txt: the exact version of everything that this environment got from pyproject.

    python tools/constraints.py            # after trying the newer versions: write the file
    python tools/constraints.py --print    # only show it

Walks from `llmkernel[dev]` through the requirements of what is installed, so that a fresh
environment is the one that the tests ran in. Local versions ("2.13.0+cpu") are written without
their suffix: the pin holds for every build of that release.
"""

from __future__ import annotations

import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

TARGET = Path(__file__).parent.parent / "constraints.txt"
HEADER = """\
# Exact versions that continuous integration runs; written by tools/constraints.py.
# The supported ranges are in pyproject.toml.
"""


def closure(root: str, extra: str) -> dict[str, str]:
    """Name → version of all that `root[extra]` needs and that is installed here."""
    pins: dict[str, str] = {}
    seen: set[tuple[str, str]] = set()
    todo = [(root, extra)]
    while todo:
        name, extra = todo.pop()
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        try:
            found = distribution(name)
        except PackageNotFoundError:
            continue  # a marker of another platform, or an extra's extra that nobody asked for
        pins[name] = found.version.partition("+")[0]
        for line in found.requires or []:
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
                child = canonicalize_name(requirement.name)
                todo += [(child, wanted) for wanted in ("", *sorted(requirement.extras))]
    pins.pop(root)
    return pins


def main(arguments: list[str]) -> int:
    """Write the file, or print it."""
    pins = closure("llmkernel", "dev")
    text = HEADER + "".join(f"{name}=={version}\n" for name, version in sorted(pins.items()))
    if arguments == ["--print"]:
        sys.stdout.write(text)
        return 0
    TARGET.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
