"""The model without a model: its settings, its text, its tokenizer, its pretended load."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmkernel import errors
from llmkernel.config import WorkerConfig
from llmkernel.errors import InvalidRequest
from llmkernel.protocol import Progress
from llmkernel.worker.scripted import ByteTokenizer, Script, load_scripted
from tests.engine.driver import Driver, request


def answer(prompt: str, **params: object) -> str:
    """What the scripted model answers."""
    driver = Driver()
    driver.submit(request(1, prompt, max_tokens=200, **params))
    driver.run()
    return driver.text(1)


def test_settings_are_read() -> None:
    assert Script.parse("scripted") == Script()
    script = Script.parse("scripted:step_ms=2.5,eos_after=7,late=1,nan_for=a=b,depth=1")
    assert script == Script(step_ms=2.5, eos_after=7, late=True, nan_for="a=b", depth=1)


@pytest.mark.parametrize(
    ("model", "named"),
    [
        ("scripted:step_sm=1", "'step_ms'"),
        ("scripted:slow", "'slow'"),
        ("scripted:step_ms", "step_ms=value"),
        ("scripted:step_ms=1,step_ms=2", "once"),
        ("scripted:step_ms=fast", "step_ms"),
        ("scripted:step_ms=-1", ">= 0"),
        ("scripted:depth=2", "depth"),
        ("scripted:fail_load=nonsense", "not_enough_memory"),
    ],
)
def test_a_setting_that_means_nothing_is_named(model: str, named: str) -> None:
    with pytest.raises(InvalidRequest, match=named):
        Script.parse(model)


def test_answers_are_words_and_depend_on_the_prompt_alone() -> None:
    first = answer("Tell me a story.")
    assert first == answer("Tell me a story.")
    assert first != answer("Tell me another story.")
    assert first.endswith(".")
    assert set(first) <= set("abcdefghijklmnopqrstuvwxyz .")


def test_drawn_answers_depend_on_the_seed() -> None:
    drawn = [answer("Tell me a story.", temperature=1.0, seed=seed) for seed in range(20)]
    assert drawn == [answer("Tell me a story.", temperature=1.0, seed=seed) for seed in range(20)]
    assert len(set(drawn)) > 15
    assert answer("Tell me a story.") == answer("Tell me a story.", seed=3)


def test_an_answer_goes_on_as_it_would_have() -> None:
    """The text so far and the prompt are one context."""
    driver = Driver(Script(eos_after=1000))
    driver.submit(request(1, "x", max_tokens=100))
    driver.run()
    text = driver.text(1)
    cut = text.index(" ", 50) + 1
    driver.submit(request(2, "x" + text[:cut], max_tokens=100 - cut))
    driver.run()
    assert driver.text(2) == text[cut:]


def test_steps_take_their_time_one_after_the_other() -> None:
    for depth in (0, 1):
        driver = Driver(Script(step_ms=5, prefill_us_per_token=100), depth=depth)
        driver.submit(request(1, "x" * 100, max_tokens=10, ignore_eos=True))
        began = time.monotonic()
        driver.run()
        assert time.monotonic() - began >= 0.05 + 0.01


@given(st.text())
def test_the_tokenizer_gives_back_what_it_was_given(text: str) -> None:
    tokenizer = ByteTokenizer()
    assert tokenizer.decode(tokenizer.encode(text), skip_special_tokens=True) == text
    assert all(0 <= token < tokenizer.vocab_size for token in tokenizer.encode(text))


def test_special_tokens_are_shown_where_asked_for() -> None:
    tokenizer = ByteTokenizer()
    assert tokenizer.decode(tokenizer.encode("a"), skip_special_tokens=False) == "<bos>a"
    assert tokenizer.token_text(next(iter(tokenizer.eos_token_ids))) == "<eos>"


def test_a_conversation_is_rendered_with_the_answer_open() -> None:
    tokenizer = ByteTokenizer()
    turns = [{"role": "user", "content": "Hi"}]
    assert tokenizer.render_chat(turns, continue_final=False) == "user: Hi\nassistant: "
    assert tokenizer.render_chat(turns, continue_final=True) == "user: Hi"
    with pytest.raises(InvalidRequest, match="'robot'"):
        tokenizer.render_chat([{"role": "robot", "content": "Hi"}], continue_final=False)


def test_loading_takes_its_time_and_tells_how_far_it_is() -> None:
    config = WorkerConfig.build(model="scripted:load_ms=50,context_length=300", context_length=100)
    told: list[Progress] = []
    began = time.monotonic()
    loaded = load_scripted(config, told.append)
    assert time.monotonic() - began >= 0.05
    assert {one.stage for one in told} == {"resolve", "read"}
    assert (told[-1].done, told[-1].total) == (100, 100)
    assert loaded.info.context_length == 100


@pytest.mark.parametrize("code", ["model_not_found", "not_enough_memory", "broken_checkpoint"])
def test_loading_fails_as_it_was_told(code: str) -> None:
    config = WorkerConfig.build(model=f"scripted:fail_load={code}")
    with pytest.raises(errors.TABLE[code].exception):
        load_scripted(config, lambda progress: None)
