"""The names that the package promises, and that the two faces of a client are one."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

import llmkernel
from llmkernel.client import AsyncClient, Client
from llmkernel.client.streams import AsyncStream, Stream

pytestmark = pytest.mark.timeout(30)

NAMES = [
    "ChatPanel",
    "Client",
    "Delta",
    "Generation",
    "SamplingParams",
    "__version__",
    "connect",
    "errors",
    "list_workers",
    "load_ipython_extension",
    "start",
    "unload_ipython_extension",
]
SYNC_ONLY = {"aio"}
NOT_AWAITED = {"stream", "stream_chat", "name", "connection"}


def test_the_package_has_exactly_these_names():
    assert sorted(llmkernel.__all__) == NAMES
    assert len(NAMES) <= 12
    for name in NAMES:
        assert getattr(llmkernel, name) is not None
    assert set(NAMES) <= set(dir(llmkernel))


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'conect'"):
        llmkernel.conect  # noqa: B018


def test_importing_the_package_loads_nothing_heavy():
    code = "import sys, llmkernel; print([m for m in ('torch','zmq','msgspec','tqdm') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("package", "use"),
    [
        ("IPython", "load_ipython_extension(None)"),
        ("markdown_it", "load_ipython_extension(None)"),
        ("markdown_it", "ChatPanel"),
    ],
)
def test_a_package_of_notebooks_that_is_absent_is_told_with_what_brings_it(package, use):
    code = f"import sys; sys.modules['{package}'] = None; import llmkernel; llmkernel.{use}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False, text=True)
    assert done.stderr.splitlines()[-1] == (
        f"llmkernel.errors.MissingDependency: {package} is not installed. "
        "Install it with: pip install 'llmkernel[notebook]'"
    )


def test_a_notebook_says_in_two_lines_that_a_package_is_absent():
    code = (
        "import sys; sys.modules['markdown_it'] = None\n"
        "from IPython.core.interactiveshell import InteractiveShell\n"
        "InteractiveShell.instance(colors='nocolor').run_cell('%load_ext llmkernel')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    what, hint = done.stdout.splitlines()
    assert what.startswith("MissingDependency: markdown_it is not installed.")
    assert hint == "Install the extra that the message names."


def surface(cls):
    return {name: value for name, value in inspect.getmembers(cls) if not name.startswith("_")}


def test_both_faces_have_the_same_names():
    assert set(surface(Client)) - SYNC_ONLY == set(surface(AsyncClient))


@pytest.mark.parametrize("name", sorted(set(surface(Client)) - SYNC_ONLY))
def test_both_faces_have_the_same_signatures(name):
    one, other = surface(Client)[name], surface(AsyncClient)[name]
    if not callable(one):
        assert one is other or type(one) is type(other)
        return
    assert inspect.signature(one).parameters == inspect.signature(other).parameters
    kinds = (inspect.signature(face).return_annotation for face in (one, other))
    assert [kind.removeprefix("Async") for kind in kinds] == [
        inspect.signature(one).return_annotation
    ] * 2
    assert inspect.iscoroutinefunction(other) == (name not in NOT_AWAITED)
    assert inspect.getdoc(other) == f"See Client.{name}." or name in NOT_AWAITED - {
        "stream",
        "stream_chat",
    }


def test_both_streams_have_the_same_names():
    assert set(surface(Stream)) == set(surface(AsyncStream)) - {"aclose"}
