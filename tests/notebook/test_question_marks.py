"""Prompts on one line that end in `?`, which IPython takes for a call for help."""

from __future__ import annotations

import contextlib
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from IPython.core.interactiveshell import InteractiveShell

from llmkernel.notebook import question_marks
from tests.notebook.test_ipython_terminal import ipython

pytestmark = pytest.mark.timeout(90)


@pytest.fixture(scope="module")
def shell():
    shell = InteractiveShell()
    shell.run_line_magic("load_ext", "llmkernel")
    yield shell
    shell.run_line_magic("unload_ext", "llmkernel")
    InteractiveShell.clear_instance()


def call(magic, line):
    return f"get_ipython().run_line_magic({magic!r}, {line!r})\n"


@pytest.mark.parametrize(
    ("cell", "becomes"),
    [
        ("%generate What is a worker?", call("generate", "What is a worker?")),
        ("%generate -t 0 What is a worker??", call("generate", "-t 0 What is a worker??")),
        ("%generate What is {{ a.b }}?", call("generate", "What is {{ a.b }}?")),
        ("%generate Is {x} or $x so?", call("generate", "Is {x} or $x so?")),
        ("%generate What's John's (worker?", call("generate", "What's John's (worker?")),
        ("%generate is # this so?", call("generate", "is # this so?")),
        ("%generate -- -t so?", call("generate", "-- -t so?")),
        ("%generate --logprobs so?", call("generate", "--logprobs so?")),
        ('%generate --system "be so?', call("generate", '--system "be so?')),
        ("%generate Is it\\\n  so?", call("generate", "Is it   so?")),
        ("%llm compare What is it?", call("llm", "compare What is it?")),
        ("%llm compare -m a -m b so?", call("llm", "compare -m a -m b so?")),
        ("x = %generate Is it so?", f"x = {call('generate', 'Is it so?')}"),
        ("x = %llm compare so?", f"x = {call('llm', 'compare so?')}"),
        ("%time %generate Is it so?", call("time", "%generate Is it so?")),
        (
            "if True:\n    %generate Is it so?\n    y = %generate so?\nz = 1",
            f"if True:\n    {call('generate', 'Is it so?')}    y = {call('generate', 'so?')}z = 1\n",
        ),
        ("%generate a?\nx = %pwd\n%generate b c?\n", None),
    ],
)
def test_a_prompt_keeps_its_question_mark(shell, cell, becomes):
    becomes = becomes or (
        call("generate", "a?") + "x = " + call("pwd", "") + call("generate", "b c?")
    )
    assert shell.transform_cell(cell) == becomes
    assert shell.check_complete(cell)[0] == "complete"


@pytest.mark.parametrize(
    "cell",
    [
        "%generate?",
        "%generate??",
        "%generate ?",
        "%llm?",
        "%llm compare?",
        "%llm list?",
        "%generate -o answer?",
        "%generated what?",
        "%time len?",
        "x?",
        "x = y?",
        '"""\n%generate is it so?\n"""',
        "a = '%generate is it so?'",
        "# %generate is it so?",
        "%%generate -t 0\n%generate is it so?",
        "%%generate?",
        "%%timeit\n%generate is it so?",
        "%%bash\n%generate is it so?\n%llm compare so?",
        "f(x = %generate so?)",
        "a % generate",
        "!ls?",
        "(1,\n %generate is it so?)",
        "%generate no question",
        "x = %generate no question",
    ],
)
def test_everything_else_is_what_it_was(shell, cell):
    ours = shell.transform_cell(cell)
    question_marks.uninstall(shell)
    try:
        assert shell.transform_cell(cell) == ours
    finally:
        question_marks.install(shell)


def test_help_on_the_magic_is_still_there(shell):
    with contextlib.redirect_stdout(io.StringIO()) as out:
        shell.run_cell("%generate?")
    assert "generate" in shell.transform_cell("%generate?")
    assert "pinfo" in shell.transform_cell("%generate?")
    assert "not found" not in out.getvalue()


PIECES = [
    "%generate ",
    "%llm ",
    "compare ",
    "x = ",
    "?",
    "\n",
    "    ",
    "'",
    '"""',
    "so",
    " ",
    "-t 0 ",
]
PIECES += ["(", ")", "{{ a }}", "\\\n", "%%time\n", "# ", "if a:\n", "é", "$a", "-o v "]


@given(st.lists(st.sampled_from(PIECES), max_size=12).map("".join))
def test_whatever_is_typed_without_a_question_mark_is_read_as_before(shell, cell):
    cell = cell.replace("?", "")
    ours = _read(shell, cell)
    question_marks.uninstall(shell)
    try:
        assert _read(shell, cell) == ours
    finally:
        question_marks.install(shell)


@given(st.lists(st.sampled_from(PIECES), max_size=12).map("".join))
def test_nothing_that_is_typed_breaks_the_shell(shell, cell):
    kind = _read(shell, cell)
    assert isinstance(kind, str)
    shell.check_complete(cell)


@given(st.text("aé'\"(){}$#!%?\\ -", max_size=30).filter(lambda text: text.strip("? ")))
def test_any_words_before_a_question_mark_reach_the_magic(shell, words):
    words = f"-- so {words.strip()}?"
    assert shell.transform_cell(f"%generate {words}") == call("generate", words)
    assert shell.transform_cell(f"y = %generate {words}") == f"y = {call('generate', words)}"


def _read(shell, cell):
    try:
        return shell.transform_cell(cell)
    except SyntaxError as error:
        return repr(error)


def test_loading_twice_adds_nothing_and_unloading_takes_it_back():
    shell = InteractiveShell()
    before = list(shell.input_transformer_manager.token_transformers)
    shell.run_line_magic("load_ext", "llmkernel")
    shell.run_line_magic("reload_ext", "llmkernel")
    assert len(shell.input_transformer_manager.token_transformers) == len(before) + 2
    shell.run_line_magic("unload_ext", "llmkernel")
    assert shell.input_transformer_manager.token_transformers == before
    assert "pinfo" in shell.transform_cell("%generate is it so?")
    InteractiveShell.clear_instance()


def test_a_question_in_a_kernel_is_answered(notebook, scripted_worker):
    whole = notebook.must("%%generate -t 0 -n 9 -o whole --quiet\nWhat is a worker?")
    assert whole.displays == []
    cell = notebook.must("%generate -t 0 -n 9 -o one What is a worker?")
    assert "not found" not in cell.printed
    assert notebook.must("one.text == whole.text").value == "True"
    assert "pinfo" not in str(notebook.must("x = %generate -t 0 -n 3 Is it so?").messages)
    compared = notebook.must("%llm compare -t 0 -n 9 What is a worker?")
    assert "scripted" in compared.text


def test_a_question_on_a_terminal_is_answered(scripted_worker):
    done = ipython(
        "%load_ext llmkernel\n%generate -t 0 -n 9 What is a worker?\n%llm compare -n 9 Is it so?\n"
    )
    assert "not found" not in done.stdout
    assert "tokens/s" in done.stdout
    assert "[scripted]" in done.stdout


@pytest.mark.parametrize(
    ("cell", "becomes"),
    [
        ("generate What?", call("generate", "What?")),
        ("  generate -t 0 What is it??\n", call("generate", "-t 0 What is it??")),
        ("llm compare -m a so?", call("llm", "compare -m a so?")),
        ("generate?", call("pinfo", "generate")),
        ("generate = so?", call("pinfo", "so")),
        ("generated so?", call("pinfo", "so")),
        ("x = 1\ngenerate so?", "x = 1\n" + call("pinfo", "so")),
    ],
)
def test_a_prompt_without_the_percent_sign_keeps_its_question_mark(shell, cell, becomes):
    assert shell.transform_cell(cell) == becomes


def test_without_automagic_or_with_a_variable_of_that_name_ipython_decides(shell, monkeypatch):
    monkeypatch.setitem(shell.user_ns, "generate", 1)
    assert shell.transform_cell("generate so?") == call("pinfo", "so")
    monkeypatch.delitem(shell.user_ns, "generate")
    assert shell.transform_cell("generate so?") == call("generate", "so?")
    monkeypatch.setattr(shell, "automagic", False)
    assert shell.transform_cell("generate so?") == call("pinfo", "so")
