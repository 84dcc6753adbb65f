"""Text goes through the tokenizer unchanged, and the template is the one of the training."""

import jinja2
import pytest
from demo_data.base import Chat, Turn
from demo_data.corpus import segments

SYSTEM, USER, ASSISTANT = (
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hello"},
    {"role": "assistant", "content": "Hi!"},
)


@pytest.mark.parametrize(
    "text",
    [
        "What is 17 + 25?",
        "  two  spaces\n\n\ttab \r\n",
        "👩‍🚀 naïve Größe 東京 \u200d€",
        "".join(map(chr, range(0x3000))),
        "```python\nx = {'a': 1}\n```",
    ],
    ids=["sum", "blanks", "emoji", "every-script", "code"],
)
def test_text_survives_the_round_trip(tokenizer, text):
    ids = tokenizer.encode(text, add_special_tokens=False)
    assert tokenizer.decode(ids, clean_up_tokenization_spaces=False) == text


def test_every_byte_has_a_token(tokenizer):
    from tokenizers.pre_tokenizers import ByteLevel

    assert set(ByteLevel.alphabet()) <= tokenizer.get_vocab().keys()


def test_each_digit_is_a_token_of_its_own(tokenizer):
    tokens = tokenizer.tokenize("1234567890")
    assert tokens == list("1234567890")


def test_plain_text_begins_with_the_begin_token_and_a_chat_does_so_once(tokenizer):
    begin = tokenizer.bos_token_id
    rendered = tokenizer.apply_chat_template([USER], tokenize=False)
    assert tokenizer.encode("Hello").count(begin) == 1
    assert tokenizer.encode(rendered, add_special_tokens=False).count(begin) == 1


def test_special_tokens_are_skipped_on_request(tokenizer):
    ids = tokenizer.encode(tokenizer.apply_chat_template([SYSTEM, USER, ASSISTANT], tokenize=False))
    assert tokenizer.decode(ids, skip_special_tokens=True) == "Be brief.HelloHi!"


def test_the_template_writes_what_training_saw(tokenizer):
    rendered = tokenizer.apply_chat_template([SYSTEM, USER, ASSISTANT], tokenize=False)
    taught = segments(Chat([Turn("Hello", "Hi!")], system="Be brief."))
    assert rendered == "".join(text for text, _ in taught)


def test_the_template_opens_the_answer(tokenizer):
    rendered = tokenizer.apply_chat_template([USER], tokenize=False, add_generation_prompt=True)
    assert rendered.endswith("<|user|>Hello<|end|><|assistant|>")


def test_the_template_can_leave_the_last_turn_open(tokenizer):
    rendered = tokenizer.apply_chat_template(
        [USER, ASSISTANT], tokenize=False, continue_final_message=True
    )
    assert rendered.endswith("<|assistant|>Hi!")


def test_an_unknown_role_is_refused(tokenizer):
    with pytest.raises(jinja2.TemplateError, match="roles"):
        tokenizer.apply_chat_template([{"role": "tool", "content": "x"}], tokenize=False)
