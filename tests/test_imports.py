"""What may import what: read from the sources, and from what an import really brings in."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import llmkernel

pytestmark = pytest.mark.timeout(60)

PACKAGE = Path(llmkernel.__file__).parent
SOURCES = sorted(PACKAGE.rglob("*.py"))
OUTSIDE_WORKER = [path for path in SOURCES if "worker" not in path.relative_to(PACKAGE).parts]
TENSORS = {
    "accelerate",
    "bitsandbytes",
    "safetensors",
    "tokenizers",
    "torch",
    "transformers",
}
PICKLES = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
CONVERTER = PACKAGE / "worker" / "convert.py"
"""A command of its own, which nothing imports: it turns pickled weights into safetensors."""
CORE = {"click", "jupyter_core", "msgspec", "platformdirs", "psutil", "tqdm", "zmq"}
"""Third-party packages that a client may load, with what they bring."""


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), filename=str(path))


def name_of(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


def imported(path: Path) -> Iterator[str]:
    """Absolute names of the modules that a source file imports, wherever in it."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name_of(path)} has a relative import"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def roots(path: Path) -> set[str]:
    return {module.partition(".")[0] for module in imported(path)}


def attributes(path: Path) -> set[str]:
    """Dotted names such as "os.environ" that a source file uses."""
    return {
        f"{node.value.id}.{node.attr}"
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
    }


def loaded_by(code: str) -> set[str]:
    """Top-level packages that a fresh interpreter has after running `code`, beyond its own."""
    script = f"import sys; before = set(sys.modules)\n{code}\nprint(*(set(sys.modules) - before))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=50
    )
    return {name.partition(".")[0] for name in done.stdout.split()}


@pytest.mark.parametrize("path", OUTSIDE_WORKER, ids=name_of)
def test_nothing_outside_the_worker_imports_tensors(path):
    assert roots(path) & TENSORS == set()


@pytest.mark.parametrize("path", OUTSIDE_WORKER, ids=name_of)
def test_nothing_outside_the_worker_imports_the_worker(path):
    assert [name for name in imported(path) if name.startswith("llmkernel.worker")] == []


@pytest.mark.parametrize(
    "path", [path for path in SOURCES if path not in OUTSIDE_WORKER], ids=name_of
)
def test_the_worker_imports_no_front_end(path):
    forbidden = tuple(
        f"llmkernel.{room}" for room in ("cli", "client", "gateway", "link", "notebook")
    )
    assert [name for name in imported(path) if name.startswith(forbidden)] == []


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_there_is_no_pickle(path):
    assert roots(path) & PICKLES == set()
    calls = {name.rpartition(".")[2] for name in attributes(path)}
    assert calls & {"recv_pyobj", "send_pyobj", "allow_pickle"} == set()
    assert "torch.load" not in attributes(path) or path == CONVERTER
    assert "allow_pickle" not in path.read_text()


def test_the_converter_reads_tensors_only_and_nobody_imports_it():
    loads = [
        {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        for node in ast.walk(tree(CONVERTER))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load"
    ]
    assert loads
    assert all(keywords.get("weights_only") == "True" for keywords in loads)
    assert [name_of(path) for path in SOURCES if "llmkernel.worker.convert" in imported(path)] == []


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_one_module_reads_the_environment(path):
    used = attributes(path) & {"os.environ", "os.environb", "os.getenv", "os.getenvb"}
    assert not used or path == PACKAGE / "environment.py"
    assert not {"os.environ", "os.getenv"} & set(imported(path))


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_durations_are_measured_on_a_clock_that_nobody_sets(path):
    assert attributes(path) & {"time.time", "time.time_ns"} == set()


def test_importing_the_package_brings_in_next_to_nothing():
    """The half second that an import may take is a matter of what it loads."""
    third_party = loaded_by("import llmkernel") - set(sys.stdlib_module_names) - {"llmkernel"}
    assert third_party <= CORE


def test_every_public_name_comes_without_tensors():
    code = "import llmkernel; [getattr(llmkernel, name) for name in llmkernel.__all__]"
    heavy = TENSORS | {"huggingface_hub", "numpy", "pandas", "IPython"}
    assert loaded_by(code) & heavy == set()


def test_a_worker_with_a_scripted_model_brings_in_no_tensors():
    assert loaded_by("import llmkernel.worker.service") & TENSORS == set()


def test_a_wrong_name_of_a_model_is_told_without_tensors():
    found = loaded_by(
        "from llmkernel.config import WorkerConfig\n"
        "from llmkernel.errors import ModelNotFound\n"
        "from llmkernel.worker.assembly import assemble\n"
        "try:\n"
        "    assemble(WorkerConfig.build(model='/no/such/folder'), print)\n"
        "except ModelNotFound:\n"
        "    pass\n"
        "else:\n"
        "    raise AssertionError('there is no such folder')\n"
    )
    assert not found & TENSORS
