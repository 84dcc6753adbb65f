"""Options made from SamplingParams: all of them, with help, and with the one verdict of build."""

from __future__ import annotations

import click
import pytest
from click.testing import CliRunner

from llmkernel.errors import InvalidRequest
from llmkernel.options.sampling import sampling_options, sampling_values
from llmkernel.params import SamplingParams


def parse(*arguments: str) -> SamplingParams:
    found = []

    @click.command()
    @sampling_options()
    def command(**values: object) -> None:
        found.append(sampling_values(values))

    result = CliRunner().invoke(command, list(arguments), standalone_mode=False)
    if result.exception:
        raise result.exception
    return SamplingParams.build(**found[0])


@click.command()
@sampling_options()
def every(**values: object) -> None:
    pass


def test_there_is_one_option_for_every_parameter():
    assert sorted(option.name for option in every.params) == sorted(
        SamplingParams.__struct_fields__
    )


@pytest.mark.parametrize("option", every.params, ids=lambda option: option.name)
def test_every_option_has_help_and_leaves_the_default_to_the_class(option):
    assert option.help
    assert option.help[0].isupper()
    assert option.default is None or "UNSET" in repr(option.default)


def test_nothing_given_is_the_default_of_the_class():
    assert parse() == SamplingParams()


def test_every_kind_of_value_arrives():
    params = parse(
        *("-n", "5", "-t", "0.5", "--top-p", "0.9", "--seed", "-3", "--samples", "2"),
        *("--stop", "END", "--stop", "\n\n", "--stop-token-id", "7", "--logit-bias", "42=-5"),
        *("--logit-bias", "7=1.5", "--ignore-eos", "--no-skip-special-tokens", "--logprobs", "0"),
    )
    assert params == SamplingParams(
        max_tokens=5,
        temperature=0.5,
        top_p=0.9,
        seed=-3,
        n=2,
        stop=["END", "\n\n"],
        stop_token_ids=[7],
        logit_bias={42: -5.0, 7: 1.5},
        ignore_eos=True,
        skip_special_tokens=False,
        logprobs=0,
    )


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["--temperature", "nan"], "temperature"),
        (["--top-p", "0"], "top_p"),
        (["-n", "-1"], "max_tokens"),
        (["--max-tokens", "9" * 30], "max_tokens"),
        (["--samples", "2", "-t", "0"], "greedy"),
        (["--stop", ""], "stop"),
        (["--logit-bias", "42"], "ID=BIAS"),
        (["--logit-bias", "x=1"], "ID=BIAS"),
    ],
)
def test_a_bad_value_is_refused_by_name(arguments, names):
    with pytest.raises(InvalidRequest, match=names):
        parse(*arguments)


def test_text_where_a_number_belongs_is_wrong_usage():
    with pytest.raises(click.BadParameter, match="not a valid integer"):
        parse("--top-k", "many")
