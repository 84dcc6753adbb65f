"""Run the panel's kernel tests on other versions of ipykernel than the installed one.

    python tools/other_kernels.py              # 6.31.0, 7.1.0, 7.3.0 and 7.4.0
    python tools/other_kernels.py 7.2.0

ipykernel 7.4 changed to which thread a click goes (docs/panel.md), so what the tests say of one
version does not hold for the others. Each version is put into a folder of its own with pip, from
the package index; the environment stays as it is.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

VERSIONS = ("6.31.0", "7.1.0", "7.3.0", "7.4.0")
TESTS = "tests/notebook/test_panel_in_a_kernel.py"
ROOT = Path(__file__).parent.parent


def run(version: str) -> int:
    """The tests' exit code."""
    print(f"ipykernel {version}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--target", folder, "--no-deps"]
        subprocess.run([*pip, f"ipykernel=={version}"], check=True)
        environment = os.environ | {"PYTHONPATH": folder}
        command = [sys.executable, "-m", "pytest", TESTS, "-q", "-s", "-n", "0"]
        return subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode


def main(arguments: list[str]) -> int:
    """Run on each; 1 where one failed."""
    failed = [version for version in arguments or VERSIONS if run(version)]
    print(f"failed: {', '.join(failed)}" if failed else "all passed")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
