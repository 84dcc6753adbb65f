"""A worker's settings: checked once, by name, wherever they come from."""

from __future__ import annotations

import math
import os

import click
import msgspec
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from llmkernel import environment
from llmkernel.config import DEMO_MODEL, WorkerConfig, default_name, parse_size
from llmkernel.errors import InvalidRequest
from llmkernel.options import worker as options

pytestmark = pytest.mark.timeout(30)


def refusal(**values: object) -> str:
    with pytest.raises(InvalidRequest) as caught:
        WorkerConfig.build(**values)
    return str(caught.value)


def test_nothing_given_is_the_embedded_model():
    config = WorkerConfig.build()
    assert config.model == DEMO_MODEL
    assert config.name == "demo"


def test_none_is_the_default():
    given_ = dict.fromkeys(WorkerConfig.__struct_fields__)
    assert WorkerConfig.build(**given_) == WorkerConfig.build()


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("Qwen/Qwen3-4B", "qwen3-4b"),
        ("/models/My Model/", "my-model"),
        ("org/UPPER_case.v1", "upper_case.v1"),
        ("x" * 100, "x" * 64),
        ("...", "model"),
        ("模型", "model"),
        ("scripted:delay=0.1", "scripted-delay-0.1"),
    ],
)
def test_a_name_is_made_from_the_model(model, name):
    assert default_name(model) == name
    assert WorkerConfig.build(model=model).name == name


@given(st.text())
def test_every_default_name_is_a_name(model):
    WorkerConfig.build(name=default_name(model))


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1", 1),
        ("2GiB", 2 * 2**30),
        ("2gib", 2 * 2**30),
        ("512MB", 512 * 10**6),
        ("512M", 512 * 10**6),
        ("1.5k", 1500),
        (" 3 TiB ", 3 * 2**40),
        ("7 B", 7),
    ],
)
def test_sizes_have_units(text, size):
    assert parse_size(text) == size
    assert WorkerConfig.build(kv_cache=text).kv_cache == size


@pytest.mark.parametrize(
    "text",
    ["", "GiB", "-1", "1e9", "2 GiBB", "two", "1.2.3", "1 XB", "½k", 400 * "9", 305 * "9" + "TiB"],
)
def test_what_is_no_size_is_refused_with_an_example(text):
    with pytest.raises(InvalidRequest, match="2GiB"):
        parse_size(text)


@pytest.mark.parametrize(
    ("given_", "meant"),
    [
        ("20GiB", 20 * 2**30),
        ("0.4", 0.4),
        ("40%", 0.4),
        (0.4, 0.4),
        ("1", 1.0),
        (1, 1.0),
        (2**31, 2**31),
    ],
)
def test_gpu_memory_is_a_size_or_a_share(given_, meant):
    found = WorkerConfig.build(gpu_memory=given_)
    assert (found.gpu_memory, type(found.gpu_memory)) == (meant, type(meant))
    again = msgspec.json.decode(msgspec.json.encode(found))
    assert WorkerConfig.build(**again) == found


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        *(("gpu_memory", value) for value in ("0", "150%", "1.5", -1, 0.0, math.nan, True)),
        ("model", ""),
        ("model", " "),
        ("model", "/models/\udcff"),
        ("revision", "\udcff"),
        ("name", "No Such Name"),
        ("name", "../x"),
        ("quantization", "nf5"),
        ("dtype", "int4"),
        ("device", "tpu"),
        ("device", "cuda:x"),
        ("context_length", 15),
        ("context_length", 2**50),
        ("context_length", "many"),
        ("kv_cache", 0),
        ("max_concurrent", 0),
        ("queue", 0),
        ("queue", 1.5),
        ("max_batch_tokens", 15),
        ("max_prefill_tokens", 511),
        ("idle_timeout", 0.5),
        ("idle_timeout", math.nan),
        ("idle_timeout", math.inf),
        ("prefix_cache", "yes"),
        ("transport", "udp"),
        ("trust_remote_code", 1),
    ],
)
def test_a_bad_value_is_refused_by_the_name_of_its_setting(setting, value):
    assert setting in refusal(**{setting: value}) or str(value) in refusal(**{setting: value})


def test_an_unknown_setting_is_refused_with_the_nearest():
    assert "'quantization'" in refusal(quantisation="nf4")
    assert "frobnicate" in refusal(frobnicate=1)


def test_a_configuration_survives_the_pipe_to_its_worker():
    config = WorkerConfig.build(model="Qwen/Qwen3-4B", kv_cache="2GiB", idle_timeout=60)
    values = msgspec.json.decode(msgspec.json.encode(config))
    assert WorkerConfig.build(**values) == config


# Command line options --------------------------------------------------------------


def parse(*arguments: str) -> WorkerConfig:
    seen: list[WorkerConfig] = []

    @click.command()
    @options.worker_options
    def command(**values: object) -> None:
        seen.append(options.build_config(values))

    command.main(list(arguments), standalone_mode=False)
    return seen[0]


def test_every_setting_has_an_option_and_every_option_a_help():
    assert {*options.HELP, "model"} == set(WorkerConfig.__struct_fields__)


def test_no_option_is_the_default_configuration():
    assert parse() == WorkerConfig.build()


def test_options_become_settings():
    assert parse(
        *("Qwen/Qwen3-4B", "--name", "q", "--revision", "v1", "--quantization", "nf4"),
        *("--dtype", "float16", "--device", "cuda:1", "--context-length", "4096"),
        *(
            "--kv-cache",
            "2GiB",
            "--gpu-memory",
            "50%",
            "--no-weight-cache",
            "--max-concurrent",
            "8",
            "--queue",
            "9",
        ),
        *("--max-batch-tokens", "64", "--max-prefill-tokens", "96"),
        *("--no-prefix-cache", "--idle-timeout", "60"),
        *("--trust-remote-code", "--transport", "tcp"),
    ) == WorkerConfig(
        name="q",
        model="Qwen/Qwen3-4B",
        revision="v1",
        quantization="nf4",
        dtype="float16",
        device="cuda:1",
        context_length=4096,
        kv_cache=2 * 2**30,
        gpu_memory=0.5,
        weight_cache=False,
        max_concurrent=8,
        queue=9,
        max_batch_tokens=64,
        max_prefill_tokens=96,
        prefix_cache=False,
        idle_timeout=60.0,
        trust_remote_code=True,
        transport="tcp",
    )


def test_defaults_in_the_help_come_from_the_class():
    @click.command()
    @options.worker_options
    def command(**values: object) -> None:
        pass

    text = " ".join(CliRunner().invoke(command, ["--help"]).output.split())
    assert f"[default: {WorkerConfig().max_concurrent}]" in text
    assert f"[default: {WorkerConfig().transport}]" in text


# Environment -----------------------------------------------------------------------


def test_the_environment_is_read_when_asked(monkeypatch):
    monkeypatch.setenv("LLMKERNEL_LOG_LEVEL", "Debug")
    assert environment.log_level() == "DEBUG"
    monkeypatch.delenv("LLMKERNEL_LOG_LEVEL")
    assert environment.log_level() == "INFO"


@pytest.mark.parametrize(
    ("text", "value"), [("1", True), ("off", False), ("auto", None), ("", None)]
)
def test_a_switch_is_on_off_or_left_to_others(monkeypatch, text, value):
    monkeypatch.setenv("LLMKERNEL_STREAM", text)
    assert environment.stream() is value


@pytest.mark.parametrize(
    ("name", "value", "read"),
    [
        ("LLMKERNEL_LOG_LEVEL", "loud", environment.log_level),
        ("LLMKERNEL_STREAM", "perhaps", environment.stream),
        ("LLMKERNEL_WATCHDOG", "-1", environment.watchdog),
        ("LLMKERNEL_WATCHDOG", "nan", environment.watchdog),
        ("LLMKERNEL_WATCHDOG", "inf", environment.watchdog),
        ("LLMKERNEL_WATCHDOG", "soon", environment.watchdog),
    ],
)
def test_a_bad_value_names_variable_and_value(monkeypatch, name, value, read):
    monkeypatch.setenv(name, value)
    with pytest.raises(InvalidRequest, match=f"{name}='{value}'"):
        read()


def test_a_worker_does_not_inherit_what_is_meant_for_the_notebook(monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    monkeypatch.setenv("HF_HOME", "/somewhere")
    assert "MPLBACKEND" not in environment.for_worker()
    assert environment.for_worker()["HF_HOME"] == "/somewhere"


@pytest.mark.parametrize("value", ["nan", "inf", "-1", "soon"])
def test_no_worker_is_started_with_a_limit_that_it_would_refuse_later(monkeypatch, value):
    monkeypatch.setenv("LLMKERNEL_WATCHDOG", value)
    with pytest.raises(InvalidRequest, match=f"LLMKERNEL_WATCHDOG='{value}'"):
        environment.for_worker()


@pytest.mark.parametrize("said", ["OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"])
def test_threads_of_a_worker_spin_for_a_moment_unless_somebody_says_how(monkeypatch, said):
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"):
        monkeypatch.delenv(name, raising=False)
    assert environment.for_worker()["GOMP_SPINCOUNT"] == "10000"
    monkeypatch.setenv(said, "1000")
    assert environment.for_worker().get("GOMP_SPINCOUNT") == os.environ.get("GOMP_SPINCOUNT")


@pytest.mark.parametrize(("setting", "value"), [("quantization", "nf5"), ("dtype", "float8")])
def test_what_a_setting_may_be_is_told(setting, value):
    said = refusal(**{setting: value})
    assert setting in said
    assert "none" in said or "bfloat16" in said
