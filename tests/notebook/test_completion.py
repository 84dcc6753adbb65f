"""Tab in the magics."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from llmkernel import doctor
from llmkernel.notebook.commands import LLM
from llmkernel.notebook.completion import candidates


class Trap:
    """An object whose attributes must not be computed for a completion."""

    plain = 1

    @property
    def costly(self):
        raise AssertionError("a completion ran code of the user")


NAMES = {
    "city": "Bern",
    "cities": ["Bern"],
    "row": {"name": "x", "two words": 1, "nested": {"deep": 1}},
    "user": SimpleNamespace(mail="m"),
    "trap": Trap(),
    "_hidden": 1,
}


def found(before):
    result = candidates(before, NAMES, lambda: ["demo", "big"], LLM, ["main", "rust"])
    return result and (result.fragment, result.names)


def test_names_that_take_no_answer_are_not_offered_for_one():
    names = dict.fromkeys(("In", "Out", "answer", "exit", "get_ipython", "quit"))
    offered = candidates("%%generate -o ", names, list, LLM)
    assert offered is not None
    assert offered.names == ["answer"]


@pytest.mark.parametrize(
    ("before", "offered"),
    [
        ("%%generate --format=j", ("j", ["json"])),
        ("%%generate -t 0 --worker=", ("", ["big", "demo"])),
        ("%llm start --quantization=n", ("n", ["nf4", "none"])),
        ("%%chat --output=ci", ("ci", ["cities", "city"])),
        ("%%generate --system a=--format=", None),
    ],
)
def test_a_value_may_stand_behind_an_equals_sign(before, offered):
    assert found(before) == offered


def test_the_first_conversation_has_a_name_to_offer():
    offered = candidates("%%chat ", {}, list, LLM)
    assert offered is not None
    assert offered.names == ["main"]


def test_a_model_is_one_of_the_cache_or_a_path_of_ipythons(tmp_path, monkeypatch):
    (tmp_path / "models--meta-llama--Llama-3.1-8B").mkdir()
    (tmp_path / "datasets--squad").mkdir()
    (tmp_path / "models--who--a--b").mkdir()
    monkeypatch.setattr(doctor, "model_cache", lambda: tmp_path)
    assert found("%llm start ") == ("", ["demo", "meta-llama/Llama-3.1-8B", "who/a--b"])
    assert found("%llm start meta-llama/L") == ("meta-llama/L", ["meta-llama/Llama-3.1-8B"])
    assert found("%llm start ./mod") is None


@pytest.mark.parametrize(
    ("before", "fragment", "names"),
    [
        ("%%generate --te", "--te", ["--temperature"]),
        ("%%generate -n 5 --top", "--top", ["--top-k", "--top-p"]),
        ("%generate --see", "--see", ["--seed"]),
        ("x = 1\n%generate --see", "--see", ["--seed"]),
        ("%%generate -m ", "", ["big", "demo"]),
        ("%%generate --worker d", "d", ["demo"]),
        ("%%generate --format ", "", ["code", "json", "markdown", "text"]),
        ("%%generate -o ci", "ci", ["cities", "city"]),
        ("%llm s", "s", ["start", "status", "stop"]),
        ("%llm start --quantization n", "n", ["nf4", "none"]),
        ("%llm start d", "d", ["demo"]),
        ("%llm start --context", "--context", ["--context-length"]),
        ("%llm use ", "", ["big", "demo"]),
        ("%llm stop d", "d", ["demo"]),
        ("%llm config --te", "--te", ["--temperature"]),
        ("%%chat ", "", ["main", "rust"]),
        ("%%chat -t 0 ru", "ru", ["rust"]),
        ("%%chat --sy", "--sy", ["--system"]),
        ("%%chat -m ", "", ["big", "demo"]),
        ("%%chat\nTell me of {{ ci", "ci", ["cities", "city"]),
        ("%llm c", "c", ["chats", "compare", "config"]),
        ("%llm compare -m ", "", ["big", "demo"]),
        ("%llm compare -m demo --te", "--te", ["--temperature"]),
        ("%%llm compare -m b", "b", ["big"]),
        ("%%llm compare\nTell me of {{ ci", "ci", ["cities", "city"]),
        ("%llm chats m", "m", ["main"]),
        ("%llm chats main --u", "--u", ["--undo"]),
        ("%llm help ch", "ch", ["chat", "chats"]),
        ("%llm help st", "st", ["start", "status", "stop"]),
        ("%%generate\nTell me of {{ ci", "ci", ["cities", "city"]),
        ("%%generate\nTell me of {{ row.n", "row.n", ["row.name", "row.nested"]),
        ("%%generate\n{{ row.nested.", "row.nested.", ["row.nested.deep"]),
        ("%%generate\n{{ user.", "user.", ["user.mail"]),
        ("%%generate\n{{ trap.c", "trap.c", ["trap.costly"]),
        ("%%generate\n{{ trap.costly.", "trap.costly.", []),
        ("%%generate\n{{ x }} and {{ le", "le", ["len"]),
        ("%%generate\n{{ _h", "_h", ["_hidden"]),
        ("%%generate --for item in cities\n{{ it", "it", ["item"]),
        ('%%generate --system "{{ ci', "ci", ["cities", "city"]),
        ("%generate {{ ci", "ci", ["cities", "city"]),
    ],
)
def test_what_may_come_is_offered(before, fragment, names):
    assert found(before) == (fragment, names)


@pytest.mark.parametrize(
    "before",
    [
        "impo",
        "%%time\nimpo",
        "%%generate\nTell me ab",
        "%%generate\n{{ city }} ab",
        "%%generate -n 5",
        "%llm logs -n ",
        "%%chat -n ",
        "%%chat\nTell me ab",
        "%%generate\n--te",
    ],
)
def test_elsewhere_others_complete(before):
    assert found(before) is None
