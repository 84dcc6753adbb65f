"""`{{ expression }}` in a prompt, and everything that only looks like it."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmkernel.errors import InvalidRequest
from llmkernel.notebook.prompt import Template, fill

NAMES = {
    "name": "Ada",
    "n": 3,
    "items": ["a", "b"],
    "row": {"city": "Bern", "population": 134_000},
    "user": SimpleNamespace(mail="ada@a.example"),
    "sneaky": "{{ name }} {name} {% raw %}",
    "empty": None,
    "open": open,  # as IPython has it
    "exit": exit,
}


@pytest.mark.parametrize(
    ("text", "filled"),
    [
        ("Hello {{ name }}!", "Hello Ada!"),
        ("{{name}}{{ n }}", "Ada3"),
        ("{{ n + 1 }} {{ n * 2 > 5 }}", "4 True"),
        ("{{ row.city }} {{ row['population'] }}", "Bern 134000"),
        ("{{ user.mail }}", "ada@a.example"),
        ("{{ ', '.join(items) }}", "a, b"),
        ("{{ items | join('-') }} {{ items[0] }} {{ items[-1:] }}", "a-b a ['b']"),
        ("{{ len(items) }} {{ sorted(items)[0] }}", "2 a"),
        ("{{ 'yes' if n > 2 else 'no' }}", "yes"),
        ("{{ {'a': {'b': 1}}['a'] }}", "{'b': 1}"),
        ("{{ '}}' }} {{ '{{' }}", "}} {{"),
        ("{{ empty }}", "None"),
        ("{{\n  name\n}}", "Ada"),
        ("{{ missing is defined }}", "False"),
        ("{{ missing | default('x') }}", "x"),
    ],
)
def test_an_expression_gives_its_value(text, filled):
    assert fill(text, NAMES) == filled


@pytest.mark.parametrize(
    "text",
    [
        '{"a": 1}',
        '{"a": {"b": {}}}',
        "{}",
        "{ name }",
        r"\frac{1}{2} \begin{x} {a}{b}}",
        "int main() { return f(x); }",
        "int m[2][2] = {{1, 2}, {3, 4}};",
        "Table[{{a, b}, {c, d}}]",
        "void f() {{ g(); } }",
        "{% if name %}x{% endif %}",
        "{# a comment #}",
        "{{}}",
        "what does {{ mean?",
        "$name ${name} %(name)s",
        "f'{name!r:>10}'",
        "%generate {x}",
        "",
    ],
)
def test_everything_else_stays_as_it_is(text):
    assert fill(text, NAMES) == text


def test_a_value_is_not_expanded_again():
    assert fill("{{ sneaky }}", NAMES) == NAMES["sneaky"]


@given(st.text())
def test_any_value_arrives_unchanged(value):
    assert fill("<{{ value }}>", {"value": value}) == f"<{value}>"


def test_a_field_that_a_row_does_not_have_is_refused_with_those_it_has():
    row = {"name": "Ada", "two words": 1}
    with pytest.raises(InvalidRequest) as refused:
        fill("{{ row.nmae }}", {"row": row})
    assert str(refused.value) == (
        "{{ row.nmae }}: it has no attribute 'nmae', but name, two words. "
        "Use --literal to send double braces as they are."
    )
    with pytest.raises(InvalidRequest) as refused:
        fill("{{ row.x }}", {"row": dict.fromkeys(f"column {n}" for n in range(50))})
    assert "column 9, …" in str(refused.value)


@given(st.text().filter(lambda text: "{{" not in text))
def test_any_text_without_double_braces_arrives_unchanged(text):
    assert fill(text, {}) == text


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("{{ nmae }}", "'nmae' is undefined. Did you mean 'name'?"),
        ("{{ nope }}", "'nope' is undefined. Define it"),
        ("{{ ecit }}", "'ecit' is undefined. Define it"),
        ("{{ row.town }}", "has no attribute 'town'"),
        ("{{ user.phone }}", "has no attribute 'phone'"),
        ("{{ items[7] }}", "has no element 7"),
        ("{{ name + }}", "{{ name + }} cannot be read"),
        ("{{ it's }}", "cannot be read"),
        ("{{ name | nope }}", "cannot be read: No filter named 'nope'. Use --literal"),
        ("{{ n / 0 }}", "{{ n / 0 }} raised ZeroDivisionError"),
        ("{{ name.__class__ }}", "__class__"),
        ("{{ [x for x in items] }}", "cannot be read"),
    ],
)
def test_an_expression_without_a_value_is_refused_by_name(text, named):
    with pytest.raises(InvalidRequest) as refused:
        fill(text, NAMES)
    assert named in str(refused.value)


def test_a_template_is_filled_again_for_each_row():
    template = Template("{{ city }}, {{ name }}")
    filled = [template.fill(NAMES | {"city": city}) for city in ("Bern", "Oslo")]
    assert filled == ["Bern, Ada", "Oslo, Ada"]


def test_evaluation_leaves_the_namespace_alone():
    before = dict(NAMES)
    fill("{{ name }}", NAMES)
    assert before == NAMES
