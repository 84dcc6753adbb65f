"""Options of Text Generation Inference's launcher are answered with what they are called here."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from llmkernel.cli.launcher_flags import COUNTERPARTS
from llmkernel.cli.serve import serve_command
from tests.cli.terminal import run

PAGE = Path(__file__).parents[2] / "docs" / "migrating_from_tgi.md"
OURS = {name for option in serve_command.params for name in option.opts}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--model-id", "Qwen/Qwen3-4B"], "the model is an argument: llmkernel serve ID"),
        (["Qwen/Qwen3-4B", "--quantize", "bitsandbytes-nf4"], "say --quantization nf4"),
        (["--num-shard=2"], "a model runs on one device"),
        (["-g", "90"], "say --drain-seconds"),
        (["-e"], "llmkernel doctor"),
    ],
)
def test_a_command_line_that_was_brought_along_is_answered(arguments, said):
    done = run("serve", *arguments)
    assert done.returncode == 2
    assert "is an option of Text Generation Inference. Here: " in done.stderr
    assert said in " ".join(done.stderr.split())


def test_any_other_option_is_answered_as_ever():
    done = run("serve", "--prot", "8080")
    assert done.returncode == 2
    assert "No such option" in done.stderr
    assert "--port" in done.stderr


def test_every_option_of_the_page_is_an_option_here_or_is_answered():
    rows = [line.split("|")[1] for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    named = {flag for row in rows for flag in re.findall(r"--[a-z-]+[a-z*]", row)}
    families = {flag.rstrip("*") for flag in named if flag.endswith("*")}
    assert len(named) > 40
    for flag in named - {f"{family}*" for family in families}:
        assert flag in OURS or flag in COUNTERPARTS, flag
    for family in families:
        assert any(flag.startswith(family.rstrip("-")) for flag in COUNTERPARTS), family
    assert not OURS & COUNTERPARTS.keys()
