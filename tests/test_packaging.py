"""What a person installs: the lists of dependencies agree, and the wheel holds what it must."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

import llmkernel

ROOT = Path(__file__).parent.parent
CONDA_NAMES = {"ollama": "ollama-python", "torch": "pytorch"}
"""Where conda-forge calls a package otherwise."""


@pytest.fixture(scope="module")
def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def requirements(project) -> dict[str, SpecifierSet]:
    """Everything that the dev extra installs, the extras inside it unfolded."""
    lines = list(project["dependencies"])
    for extra in ("worker", "notebook", "gateway", "lab", "dev"):
        lines += project["optional-dependencies"][extra]
    parsed = [Requirement(line) for line in lines]
    found = {}
    for requirement in parsed:
        name = canonicalize_name(requirement.name)
        if name == "llmkernel":
            continue
        assert found.setdefault(name, requirement.specifier) == requirement.specifier, (
            f"{name} is asked for with two ranges"
        )
    return found


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return dict(line.split("==") for line in lines if line and not line.startswith("#"))


def test_the_conda_environment_asks_for_what_pyproject_asks_for(requirements, project):
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    conda = [line for line in environment["dependencies"] if isinstance(line, str)]
    asked = {
        canonicalize_name(requirement.name): requirement.specifier
        for requirement in map(Requirement, conda)
    }
    assert asked.pop("python") == SpecifierSet(project["requires-python"])
    asked.pop("pip")
    expected = {CONDA_NAMES.get(name, name): spec for name, spec in requirements.items()}
    assert asked == expected
    assert {"pip": ["-e ."]} in environment["dependencies"]


def test_every_dependency_is_pinned_inside_its_range(requirements):
    pinned = pins()
    assert set(requirements) - set(pinned) == set()
    outside = [name for name, spec in requirements.items() if not spec.contains(pinned[name])]
    assert outside == []


def test_pins_are_plain_releases_that_any_index_has():
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        assert line.startswith("#") or re.fullmatch(r"[a-z0-9-]+==[0-9][0-9a-z.]*", line), line
    assert pins()["torch"] == "2.13.0"


def test_the_core_asks_for_six_packages_and_no_torch(project):
    names = {Requirement(line).name for line in project["dependencies"]}
    assert len(names) <= 6
    assert not names & {"torch", "transformers", "numpy", "ipython", "jupyterlab"}


@pytest.mark.parametrize(
    ("python", "says"),
    [
        (None, "There is no 'python-of-the-test' here"),
        ('[ "$1" = -V ] && echo Python 3.9.2 || exit 1', "3.11 or newer, and"),
        ('[ "$1" != -m ]', "apt install python3-venv"),
    ],
    ids=["absent", "old", "without venv"],
)
def test_a_python_that_will_not_do_is_named_with_the_cure(tmp_path, python, says):
    if python is not None:
        program = tmp_path / "python-of-the-test"
        program.write_text(f"#!/bin/sh\n{python}\n")
        program.chmod(0o755)
    done = subprocess.run(
        ["sh", ROOT / "tools" / "venv.sh"],
        env={
            "PATH": f"{tmp_path}:/usr/bin:/bin",
            "PYTHON": "python-of-the-test",
            "VENV": str(tmp_path / "venv"),
        },
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert done.returncode == 1
    assert says in done.stderr
    assert not (tmp_path / "venv").exists()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=ROOT,
        check=True,
        capture_output=True,
        timeout=100,
    )
    (path,) = folder.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        yield archive


def test_the_wheel_holds_the_embedded_model_whole(wheel):
    shipped = {name for name in wheel.namelist() if name.startswith("llmkernel/demo/")}
    assert {f"llmkernel/demo/{name}" for name in ("config.json", "model.safetensors")} <= shipped
    assert any(name.endswith("tokenizer.json") for name in shipped)
    weights = wheel.getinfo("llmkernel/demo/model.safetensors").file_size
    assert weights <= 8_000_000


def test_the_wheel_holds_the_panels_bundle_and_its_licences(wheel):
    folder = "llmkernel/notebook/panel/static"
    assert wheel.getinfo(f"{folder}/panel.js").file_size <= 500_000
    assert "dompurify" in wheel.read(f"{folder}/LICENSES.txt").decode()
    text = wheel.read(f"{folder}/panel.js").decode()
    assert not re.search(r"XMLHttpRequest|new WebSocket|sendBeacon", text)


def test_the_lock_file_of_the_panel_names_no_registry():
    assert '"resolved"' not in (ROOT / "panel-js" / "package-lock.json").read_text()


def test_the_wheel_says_that_it_is_typed(wheel):
    assert "llmkernel/py.typed" in wheel.namelist()


def test_the_wheel_holds_the_package_and_nothing_beside_it(wheel):
    tops = {name.partition("/")[0] for name in wheel.namelist()}
    assert {top for top in tops if not top.endswith((".dist-info", ".data"))} == {"llmkernel"}
    kinds = {Path(name).suffix for name in wheel.namelist()}
    assert not kinds & {".pyc", ".so", ".pkl", ".bin", ".pt", ".log"}


def test_installing_puts_the_gateway_into_jupyter(wheel):
    data = {name.partition(".data/data/")[2]: name for name in wheel.namelist() if ".data/" in name}
    lab = "share/jupyter/labextensions/llmkernel"
    config = "etc/jupyter/jupyter_server_config.d/llmkernel.json"
    assert set(data) == {config, f"{lab}/package.json", f"{lab}/static/remoteEntry.js"}
    enabled = json.loads(wheel.read(data[config]))["ServerApp"]["jpserver_extensions"]
    assert enabled == {"llmkernel.gateway.extension": True}
    package = json.loads(wheel.read(data[f"{lab}/package.json"]))
    assert package["jupyterlab"]["_build"]["load"] == "static/remoteEntry.js"
    assert package["version"] == llmkernel.__version__


def test_both_programs_are_entry_points_of_the_wheel(wheel):
    (path,) = (name for name in wheel.namelist() if name.endswith("entry_points.txt"))
    text = wheel.read(path).decode()
    assert "llmkernel = llmkernel.cli:main" in text
    assert "jupyter-llmkernel = llmkernel.cli:main" in text


def test_the_wheel_carries_the_licence_and_the_readme(wheel):
    names = wheel.namelist()
    assert any(name.endswith("licenses/LICENSE") for name in names)
    (metadata,) = (name for name in names if name.endswith(".dist-info/METADATA"))
    assert "License-Expression: Apache-2.0" in wheel.read(metadata).decode()
