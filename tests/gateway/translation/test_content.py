"""Contents of messages: texts and parts that are text; everything else is refused by its place."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmkernel.errors import InvalidRequest, UnsupportedField
from llmkernel.gateway.translation import content


@given(st.lists(st.text()))
def test_parts_are_one_text(texts):
    parts = [{"type": "text", "text": text} for text in texts]
    assert content.text(parts, "content") == "".join(texts)


@given(st.text())
def test_a_text_is_itself(text):
    assert content.text(text, "content") == text


@pytest.mark.parametrize(
    "kind",
    [
        "image_url",
        "input_image",
        "image",
        "file",
        "document",
        "input_audio",
        "tool_result",
        "thinking",
    ],
)
def test_what_no_model_here_reads_is_unsupported(kind):
    parts = [{"type": "text", "text": "see"}, {"type": kind, kind: {"url": "http://x"}}]
    with pytest.raises(UnsupportedField) as refused:
        content.text(parts, "messages[0].content")
    assert refused.value.data["field"] == "messages[0].content[1].type"
    assert "http://x" not in refused.value.message
    assert ".type" not in refused.value.message, "the part is to go, not its type"


@pytest.mark.parametrize(
    ("part", "field"),
    [
        ({}, "c[0].type"),
        ({"type": 3, "text": "x"}, "c[0].type"),
        ({"type": "poem", "text": "x"}, "c[0].type"),
        ({"type": "text"}, "c[0].text"),
        ({"type": "text", "text": ["x"]}, "c[0].text"),
        (
            {"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}},
            "c[0].cache_control",
        ),
    ],
)
def test_a_part_that_is_no_text_is_refused(part, field):
    with pytest.raises(InvalidRequest) as refused:
        content.text([part], "c")
    assert refused.value.data["field"] == field


def test_notes_change_nothing():
    parts = [{"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}}]
    assert content.text(parts, "c", notes=("cache_control",)) == "x"


def test_a_missing_content_is_refused():
    with pytest.raises(InvalidRequest, match=r"messages\[2\]\.content must be text"):
        content.text(None, "messages[2].content")
