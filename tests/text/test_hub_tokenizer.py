"""A model's tokenizer as the worker sees it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import small_tokenizers

from llmkernel.errors import BrokenCheckpoint, InvalidRequest, UnsupportedModel
from llmkernel.worker.text import Tokenizer
from llmkernel.worker.tokenizer import HubTokenizer


@pytest.fixture
def tokenizer() -> Iterator[HubTokenizer]:
    hub = HubTokenizer(small_tokenizers.fast(), extra_eos=[7])
    yield hub
    hub.close()


def test_it_is_a_tokenizer_of_the_worker(tokenizer: HubTokenizer) -> None:
    as_protocol: Tokenizer = tokenizer
    assert as_protocol.has_chat_template
    assert as_protocol.vocab_size == 401  # 400 and <tool>


@pytest.mark.parametrize("kind", sorted(small_tokenizers.KINDS))
@pytest.mark.parametrize("add", [True, False])
def test_ids_are_those_of_transformers(kind: str, add: bool) -> None:
    fast = small_tokenizers.fast(kind, None)
    hub = HubTokenizer(small_tokenizers.fast(kind, None))
    for text in (*small_tokenizers.CORPUS, "", "<s>special</s><tool>", "\x00\r\n"):
        assert hub.encode(text, add) == fast(text, add_special_tokens=add)["input_ids"]


def test_a_truncation_stored_with_the_tokenizer_is_not_applied() -> None:
    fast = small_tokenizers.fast()
    fast.backend_tokenizer.enable_truncation(3)
    fast.backend_tokenizer.enable_padding(length=50)
    hub = HubTokenizer(fast)
    assert len(hub.encode("The quick brown fox jumps over the lazy dog")) > 3
    assert len(hub.encode("a")) == 1
    hub.close()


def test_special_ids_are_the_special_tokens_only(tokenizer: HubTokenizer) -> None:
    assert tokenizer.special_ids == {0, 1, 2}
    assert (
        tokenizer.decode([*tokenizer.encode("a<tool>"), 1], skip_special_tokens=True) == "a<tool>"
    )


def test_answers_end_at_every_kind_of_end(tokenizer: HubTokenizer) -> None:
    # </s> of the tokenizer, <|end|> of the chat template, 7 of generation_config
    assert tokenizer.eos_token_ids == {1, 2, 7}


@pytest.mark.parametrize(
    "template",
    [
        None,
        "{{ raise_exception('no') }}",
        "{{ messages[0].content }}",
        "{{ messages[1].content }}x",
    ],
)
def test_a_template_that_shows_no_end_of_turn_adds_none(template: str | None) -> None:
    hub = HubTokenizer(small_tokenizers.fast(chat_template=template))
    assert hub.eos_token_ids == {1}
    hub.close()


def test_half_a_surrogate_pair_is_refused(tokenizer: HubTokenizer) -> None:
    with pytest.raises(InvalidRequest, match="surrogate"):
        tokenizer.encode("a\ud800")


@pytest.mark.parametrize("token", [-1, 2**40])
def test_an_impossible_id_is_refused(tokenizer: HubTokenizer, token: int) -> None:
    with pytest.raises(InvalidRequest, match="token id"):
        tokenizer.decode([token])


def test_an_id_without_a_token_has_no_text(tokenizer: HubTokenizer) -> None:
    assert tokenizer.decode([tokenizer.vocab_size + 3]) == ""
    assert tokenizer.token_text(tokenizer.vocab_size + 3) == ""


@pytest.mark.parametrize(
    ("kind", "token", "text"),
    [
        ("byte_level", "Ġthe", " the"),
        ("byte_level", "Ã", "\ufffd"),
        ("byte_fallback", "▁the", " the"),
        ("byte_fallback", "<0x41>", "A"),
        ("word_piece", "the", " the"),
        ("word_piece", "##s", "s"),
        ("word_piece", "</s>", " </s>"),
    ],
)
def test_a_tokens_text_is_what_it_adds_to_a_text(kind: str, token: str, text: str) -> None:
    fast = small_tokenizers.fast(kind, None)
    hub = HubTokenizer(fast)
    number = fast.get_vocab()[token]
    assert hub.token_text(number) == text
    assert hub.token_text(number) == text  # from memory, the second time


def test_many_threads_may_encode_at_once(tokenizer: HubTokenizer) -> None:
    texts = [text * 30 for text in small_tokenizers.CORPUS] * 10
    expected = [tokenizer.encode(text) for text in texts]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(tokenizer.encode, texts)) == expected


@pytest.mark.parametrize("skip", [True, False])
def test_others_go_on_while_a_long_list_of_ids_becomes_text(
    tokenizer: HubTokenizer, skip: bool
) -> None:
    ids = [1, *tokenizer.encode("The quick brown fox. "), *range(3, 300)]
    turns = 0
    with ThreadPoolExecutor(1) as pool:
        work = pool.submit(tokenizer.decode, ids * 2000, skip)
        while not work.done():
            time.sleep(0.001)
            turns += 1
    assert turns > 20  # two or three where the lock is held from beginning to end
    assert work.result()[:200] == tokenizer.decode(ids, skip)[:200]


def test_without_a_template_a_conversation_is_refused() -> None:
    hub = HubTokenizer(small_tokenizers.fast(chat_template=None))
    assert not hub.has_chat_template
    with pytest.raises(InvalidRequest, match="no chat template"):
        hub.render_chat([{"role": "user", "content": "a"}], continue_final=False)


def test_of_several_templates_the_default_is_taken() -> None:
    fast = small_tokenizers.fast()
    fast.chat_template = {"tool_use": "tools", "default": "plain"}
    hub = HubTokenizer(fast)
    assert hub.render_chat([{"role": "user", "content": "a"}], continue_final=False) == "plain"
    hub.close()


def test_a_slow_tokenizer_is_refused_with_the_way_out() -> None:
    class Slow:
        eos_token_id = None

    slow: Any = Slow()
    with pytest.raises(UnsupportedModel, match=r"tokenizer\.json"):
        HubTokenizer(slow)


def test_a_tokenizer_without_tokens_is_broken() -> None:
    empty = small_tokenizers.Tokenizer(small_tokenizers.models.BPE())
    with pytest.raises(BrokenCheckpoint, match="no tokens"):
        HubTokenizer(small_tokenizers.PreTrainedTokenizerFast(tokenizer_object=empty))
