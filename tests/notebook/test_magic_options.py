"""The line of a magic: where its options end, what they are worth, and what is refused."""

from __future__ import annotations

import click
import pytest

from llmkernel.errors import InvalidRequest
from llmkernel.notebook.arguments import GENERATE, parse, values_of
from llmkernel.notebook.commands import LLM

NAMES = {"T": 0.25, "persona": "a pirate", "d": {"k": "v"}}


def read(line):
    return parse(GENERATE, "%%generate", line, NAMES)


@pytest.mark.parametrize(
    ("line", "values"),
    [
        ("-n 64 -t 0.5", {"max_tokens": 64, "temperature": 0.5}),
        ("-n64 -t0", {"max_tokens": 64, "temperature": 0.0}),
        ("--max-tokens=64 --top-p=.9", {"max_tokens": 64, "top_p": 0.9}),
        ("--top-k 5 --min-p 0.1 --seed 7", {"top_k": 5, "min_p": 0.1, "seed": 7}),
        ("--presence-penalty -0.5", {"presence_penalty": -0.5}),
        ('--system "be brief"', {"system": "be brief"}),
        ("--system 'say \"hi\"'", {"system": 'say "hi"'}),
        ('--system "say \\"hi\\""', {"system": 'say "hi"'}),
        ("--system be\\ brief", {"system": "be brief"}),
        ('--system "JSON: {a: 1} $x"', {"system": "JSON: {a: 1} $x"}),
        ("--stop END --stop '###'", {"stop": ("END", "###")}),
        ('--stop "\\n"', {"stop": ("\n",)}),
        ("--stop {{ '\\n\\n' }}", {"stop": ("\n\n",)}),
        ("-t {{ T * 2 }}", {"temperature": 0.5}),
        ('--system "You are {{ persona }}"', {"system": "You are a pirate"}),
        ("--system '{{ d[\"k\"] }}'", {"system": "v"}),
        ("--logprobs", {"logprobs": 5}),
        ("--logprobs --raw", {"logprobs": 5, "raw": True}),
        ("--logprobs 3 --no-raw", {"logprobs": 3, "raw": False}),
        ("--for _ in xs", {"loop": ("_", "xs")}),
        ("-o _mine", {"output": "_mine"}),
        ("--for x in xs", {"loop": ("x", "xs")}),
        ('--for x in ["a b", "c"] -n 3', {"loop": ("x", '["a b", "c"]'), "max_tokens": 3}),
        ('--for "x in df.head( 2 )" --quiet', {"loop": ("x", "df.head( 2 )"), "quiet": True}),
        ("--for 'c in \"a b\"' -n 3", {"loop": ("c", '"a b"'), "max_tokens": 3}),
        ("--for x in df.head( 2 ) --quiet", {"loop": ("x", "df.head( 2 )"), "quiet": True}),
        ("-o out -m demo --background", {"output": "out", "worker": "demo", "background": True}),
        ("", {}),
    ],
)
def test_options_have_their_values(line, values):
    parsed = read(line)
    assert parsed.values == values
    assert parsed.rest == ""


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("-m one -m other", "'-m' / '--worker'"),
        ("-t 0.1 --temperature=0.9", "'-t' / '--temperature'"),
        ("--for x in xs --for y in ys", "'--for'"),
        ("--logprobs --logprobs 2", "'--logprobs'"),
    ],
)
def test_an_option_of_one_value_cannot_be_given_twice(line, named):
    with pytest.raises(InvalidRequest) as refused:
        read(line)
    assert f"Option {named} takes one value, and was given 2 times." in str(refused.value)


@pytest.mark.parametrize("name", sorted(LLM.commands))
def test_commands_take_each_option_of_one_value_once(name):
    command = LLM.commands[name]
    for param in command.params:
        if isinstance(param, click.Option) and not (param.multiple or param.is_flag):
            word = param.opts[-1]
            with pytest.raises(InvalidRequest, match=f"{word}' takes one value"):
                values_of(command, f"%llm {name}", [word, "1", word, "1"])


@pytest.mark.parametrize(
    ("line", "rest"),
    [
        ('What\'s new in "this" {x}?', 'What\'s new in "this" {x}?'),
        ("-n 5   Tell  me", "Tell  me"),
        ("--logprobs tell me", "tell me"),
        ("--logprobs 2 tell me", "tell me"),
        ("-n 5 -- -5 + 3 is", "-5 + 3 is"),
        ("--raw {{ persona }} -n 5", "{{ persona }} -n 5"),
    ],
)
def test_a_prompt_on_the_line_stays_as_it_is_written(line, rest):
    assert read(line).rest == rest


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("--temprature 1", "Did you mean '--temperature'?"),
        ("--json schema", "No such option '--json'"),
        ("-n many", "'many' is not a valid integer"),
        ("-n", "requires an argument"),
        ("--format html", "'markdown', 'text', 'code', 'json'"),
        ('--system "be brief', "never closed"),
        ("-o 3x", "'3x' is no name of a variable"),
        ("-o class", "'class' is no name of a variable"),
        ("--for x of xs", "--for NAME in EXPR"),
        ('--for "range(3)"', "--for NAME in EXPR"),
        ("--for x", "--for NAME in EXPR"),
        ("--for 1 in xs", "'1' is no name of a variable"),
        ("-t {{ missing }}", "'missing' is undefined"),
        ("-5", "No such option"),
        ("-o get_ipython", "'get_ipython' is IPython's own"),
        ("-o In", "'In' is IPython's own"),
        ("-o _", "'_' is IPython's own"),
        ("-o _i12", "'_i12' is IPython's own"),
        ("-o __builtins__", "'__builtins__' is IPython's own"),
    ],
)
def test_what_cannot_be_is_refused_with_the_reason(line, named):
    with pytest.raises(InvalidRequest) as refused:
        read(line)
    assert named in str(refused.value)


def test_every_sampling_parameter_that_can_be_shown_has_an_option():
    from llmkernel.params import SamplingParams

    names = {param.name for param in GENERATE.params}
    assert set(SamplingParams.__struct_fields__) - names == {"prompt_logprobs"}


def test_values_become_sampling_parameters_of_the_same_name():
    parsed = read("-n 5 -t 0.5 --samples 2 --stop END --logit-bias 7=-1 --system hi")
    assert parsed.sampling == {
        "max_tokens": 5,
        "temperature": 0.5,
        "n": 2,
        "stop": ("END",),
        "logit_bias": {7: -1.0},
    }


def test_a_malformed_bias_is_refused():
    with pytest.raises(InvalidRequest, match="no logit bias"):
        read("--logit-bias 7").sampling  # noqa: B018
