"""What the documents promise: links lead somewhere, commands parse, the README's Python runs."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest

from llmkernel.cli import program

ROOT = Path(__file__).parent.parent
PAGES = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), ROOT / "benchmarks" / "README.md"], key=str
)


def blocks(page: Path, language: str = "") -> list[str]:
    """The fenced blocks of a page that are marked with a language, or with none."""
    fences = re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)
    return [text for mark, text in fences if mark == language]


def commands(page: Path) -> list[str]:
    """The calls of the program in a page's blocks, as one would type them."""
    lines = [line for block in blocks(page) for line in block.splitlines()]
    calls = [part.strip() for line in lines for part in line.split("#")[0].split("|")]
    meant = [call for call in calls if call.startswith(("llmkernel ", "jupyter llmkernel "))]
    return [call for call in meant if not re.search(r"COMMAND|OPTIONS", call)]  # not usage


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_to_files_that_are_there(page):
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    targets = [target.partition("#")[0] for target in re.findall(r"\]\(([^)\s]+)\)", text)]
    local = [target for target in targets if target and not re.match(r"[a-z]+:", target)]
    assert [target for target in local if not (page.parent / target).exists()] == []


@pytest.mark.parametrize("call", sorted({call for page in PAGES for call in commands(page)}))
def test_commands_are_ones_that_the_program_takes(call):
    name, *arguments = shlex.split(call.removeprefix("jupyter "))[1:]
    command = program.get_command(click.Context(program), name)
    assert command is not None, f"there is no command {name}"
    with command.make_context(name, arguments):
        pass


@pytest.mark.timeout(200)
def test_the_python_of_the_readme_runs(runtime_dir):
    (example,) = blocks(ROOT / "README.md", "python")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", f"{example}\nprint(len(answers))\nllm.stop()"],
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "100"
    assert "Interrupt" in done.stdout
