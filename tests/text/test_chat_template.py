"""Chat templates: as transformers renders them, and harmless whatever they hold."""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
import small_tokenizers

from llmkernel.errors import InvalidRequest
from llmkernel.protocol import MAX_PROMPT_BYTES
from llmkernel.worker import chat_process
from llmkernel.worker.chat import ChatTemplate

TURNS = [
    {"role": "user", "content": "Say <hi> & 'bye' é 日本"},
    {"role": "assistant", "content": "Well, "},
]
CHATML = (
    "{%- for message in messages %}\n"
    "    {{- '<|im_start|>' + message.role + '\\n' + message.content | trim + '<|im_end|>\\n' }}\n"
    "{%- endfor %}\n"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)
FEATURES = (
    "{{ bos_token }}{% for m in messages %}{% if loop.first %}{% continue %}{% endif %}"
    "{% generation %}{{ m | tojson }}{% endgeneration %}{% break %}{% endfor %}\n"
    "  {% set ns = namespace(n=0) %}{% set ns.n = ns.n + 1 %}{{ ns.n }}\n"
    "{% if tools is not none or documents %}tools{% endif %}{{ strftime_now('%Y') }}"
)


def rendered(source: str, *turns: dict[str, str], continue_final: bool = False) -> str:
    template = ChatTemplate(source)
    try:
        return template.render(turns or TURNS, continue_final)
    finally:
        template.close()


@pytest.mark.parametrize("source", [small_tokenizers.CHAT, CHATML, FEATURES])
def test_rendering_is_that_of_transformers(source: str) -> None:
    theirs = small_tokenizers.fast(chat_template=source)
    template = ChatTemplate(source, {"bos_token": "<s>", "eos_token": "</s>"})
    for turns in (TURNS[:1], TURNS):
        assert template.render(turns) == theirs.apply_chat_template(
            turns, tokenize=False, add_generation_prompt=True
        )
    template.close()


@pytest.mark.parametrize("source", [small_tokenizers.CHAT, CHATML])
@pytest.mark.parametrize("content", ["Well, ", "Well,", "<|im_end|>", "CONTINUE", ""])
def test_continuing_the_last_turn_is_that_of_transformers(source: str, content: str) -> None:
    theirs = small_tokenizers.fast(chat_template=source)
    turns = [TURNS[0], {"role": "assistant", "content": content}]
    expected = theirs.apply_chat_template(turns, tokenize=False, continue_final_message=True)
    assert rendered(source, *turns, continue_final=True) == expected


def test_the_callers_messages_stay_as_they_are() -> None:
    turns = [dict(turn) for turn in TURNS]
    rendered(CHATML, *turns, continue_final=True)
    assert turns == TURNS


def test_contents_are_data_and_no_template() -> None:
    assert "{{ 7 * 7 }}" in rendered(CHATML, {"role": "user", "content": "{{ 7 * 7 }}"})


def test_what_the_template_refuses_is_the_callers_mistake() -> None:
    source = "{{ raise_exception('Roles must alternate.') }}"
    with pytest.raises(InvalidRequest, match=r"refuses this conversation: Roles must alternate\."):
        rendered(source)


@pytest.mark.parametrize(
    "source", ["{% for %}", "{{ messages[9].content.x }}", "{{ 1 / 0 }}", "{% include 'x' %}"]
)
def test_a_broken_template_says_so(source: str) -> None:
    with pytest.raises(InvalidRequest, match="cannot render this conversation"):
        rendered(source)


def test_half_a_character_from_a_template_is_the_requests_error() -> None:
    with pytest.raises(InvalidRequest, match="half a character"):
        rendered("{{ '\\ud83d' }}{{ messages[0]['content'] }}", {"role": "user", "content": "x"})


def test_an_empty_conversation_is_refused() -> None:
    template = ChatTemplate(CHATML)
    with pytest.raises(InvalidRequest, match="at least one message"):
        template.render([])
    template.close()


def test_a_last_turn_that_the_template_drops_cannot_be_continued() -> None:
    with pytest.raises(InvalidRequest, match="cannot be continued"):
        rendered("{{ messages[0].content }}", continue_final=True)


ESCAPES = [
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ lipsum.__globals__['os'].system('touch CANARY') }}",
    "{{ cycler.__init__.__globals__.os.popen('touch CANARY').read() }}",
    "{{ messages.append({'role': 'x'}) }}",
    "{{ self._TemplateReference__context.environment }}",
    "{% set x = '%c' | attr('format') %}{{ (raise_exception|attr('__globals__')).os.getpid() }}",
]


@pytest.mark.parametrize("source", ESCAPES)
def test_the_sandbox_lets_nothing_out(source: str, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    with pytest.raises(InvalidRequest):
        rendered(source.replace("CANARY", str(canary)))
    assert not canary.exists()


BOMBS = {
    "time": (
        (
            "{% for i in range(99999) %}{% for j in range(99999) %}{% set x = j %}"
            "{% endfor %}{% endfor %}"
        ),
        "takes more than 0.5 s",
    ),
    "one slow operation": ("{{ (messages | length + 8) ** (9 ** 9) }}", "takes more than 0.5 s"),
    "output": ("{% for i in range(99999) %}{{ 'a' * 1000 }}{% endfor %}", "makes more than"),
    "one large text": ("{{ messages[0].content * 10 ** 8 }}", "(makes|takes) more than"),
    "memory": ("{{ messages[0].content * 10 ** 10 }}", "too much memory"),
    "doubling": (
        (
            "{% set ns = namespace(x='a') %}"
            "{% for i in range(60) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}"
        ),
        "too much memory|takes more than 0.5 s",
    ),
    "depth": ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "RecursionError"),
    "format": ("{{ '%1000000000000d' % 1 }}", "too much memory|cannot render"),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_no_template_can_take_time_or_memory_without_end(bomb: str) -> None:
    source, text = BOMBS[bomb]
    only_then = "{% if messages[0].content == 'go' %}" + source + "{% endif %}ok"
    template = ChatTemplate(only_then, seconds=0.5)
    assert template.render([{"role": "user", "content": "still"}]) == "ok"
    began = time.monotonic()
    with pytest.raises(InvalidRequest, match=text):
        template.render([{"role": "user", "content": "go"}])
    assert time.monotonic() - began < 10
    assert template.render([{"role": "user", "content": "still"}]) == "ok"
    template.close()


def test_the_process_ends_itself_when_nobody_waits_for_it() -> None:
    setup = {"path": sys.path, "template": BOMBS["time"][0], "seconds": 0.3, "characters": 99}
    with subprocess.Popen(
        [sys.executable, "-I", chat_process.__file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin
        process.stdin.write(json.dumps(setup).encode() + b"\n{}\n")
        process.stdin.flush()
        assert process.wait(30) == -signal.SIGALRM


def test_a_template_that_is_a_bomb_to_compile_ends_too() -> None:
    with pytest.raises(InvalidRequest, match="chat template"):
        rendered("{{ 'a' * 10 ** 10 }}")


def test_a_large_conversation_is_quick_and_a_too_large_one_refused() -> None:
    template = ChatTemplate(CHATML)
    text = template.render([{"role": "user", "content": "a" * (MAX_PROMPT_BYTES - 100)}])
    assert len(text) > MAX_PROMPT_BYTES - 100
    with pytest.raises(InvalidRequest, match="makes more than"):
        template.render([{"role": "user", "content": "a" * MAX_PROMPT_BYTES}])
    template.close()


def test_many_threads_may_render_at_once() -> None:
    template = ChatTemplate(CHATML)
    with ThreadPoolExecutor(8) as pool:
        texts = list(
            pool.map(lambda i: template.render([{"role": "user", "content": f"<{i}>"}]), range(200))
        )
    assert all(f"<{i}>" in text for i, text in enumerate(texts))
    template.close()


def test_the_process_behind_sees_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    before = psutil.Process().children()  # of other tests, such as multiprocessing's tracker
    template = ChatTemplate(CHATML)
    template.render(TURNS)
    (child,) = set(psutil.Process().children()) - set(before)
    assert "hf_secret" not in child.environ().values()
    template.close()


def test_nothing_runs_after_the_template_is_dropped() -> None:
    before = psutil.Process().children()
    template = ChatTemplate(CHATML)
    template.render(TURNS)
    descriptors = len(os.listdir("/proc/self/fd"))
    del template
    gc.collect()
    assert psutil.Process().children() == before
    assert len(os.listdir("/proc/self/fd")) == descriptors - 2


def test_a_template_that_was_closed_starts_again() -> None:
    template = ChatTemplate(CHATML)
    first = template.render(TURNS)
    template.close()
    assert template.render(TURNS) == first
    template.close()


def test_what_a_template_raises_holds_nothing_that_a_terminal_obeys():
    template = ChatTemplate("{{ raise_exception('\\x1b[31mred\\x1b]52;c;eA==\\x07 \\u202e') }}", {})
    with pytest.raises(InvalidRequest) as caught:
        template.render([{"role": "user", "content": "x"}], continue_final=False)
    assert "red" in caught.value.message
    assert not {"\x1b", "\x07", "\u202e"} & set(caught.value.message)


@pytest.mark.timeout(30)
def test_a_process_that_was_stopped_holds_nobody_up():
    before = set(psutil.Process().children())
    template = ChatTemplate("{{ messages[0].content }}", seconds=0.2)
    large = [{"role": "user", "content": "a" * 300_000}]  # more than a pipe takes unread
    template.render(large)
    (child,) = set(psutil.Process().children()) - before
    child.suspend()
    with pytest.raises(InvalidRequest, match=r"takes more than 0\.2 s"):
        template.render(large)
    assert template.render(large) == large[0]["content"]
    template.close()
