"""A terminal conversation's turns and files."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmkernel.cli.conversation import Conversation
from llmkernel.errors import InvalidRequest
from llmkernel.protocol import ChatMessage


def talked() -> Conversation:
    conversation = Conversation("Be brief.")
    conversation.add("one?", "1")
    conversation.add("two?", "2")
    return conversation


def roles(messages: list[ChatMessage]) -> str:
    return "".join(message.role[0] for message in messages)


def test_a_question_is_asked_with_all_that_was_said_before():
    messages = talked().asking("three?")
    assert roles(messages) == "suauau"
    assert messages[-1].content == "three?"


def test_asking_adds_nothing_until_the_answer_is_there():
    conversation = talked()
    conversation.asking("three?")
    assert len(conversation) == 4


def test_undo_takes_back_the_last_question_and_its_answer():
    conversation = talked()
    assert conversation.undo() == "two?"
    assert [turn.content for turn in conversation.turns] == ["one?", "1"]
    assert conversation.undo() == "one?"
    assert conversation.undo() is None


def test_reset_keeps_the_system_text():
    conversation = talked()
    conversation.reset()
    assert roles(conversation.messages) == "s"


def test_what_was_saved_is_loaded_again(tmp_path):
    path = tmp_path / "talk.json"
    talked().save(path, model="demo", params={"temperature": 0.0})
    loaded, params = Conversation.load(path)
    assert loaded.messages == talked().messages
    assert params == {"temperature": 0.0}


def test_other_names_get_markdown(tmp_path):
    path = tmp_path / "talk.md"
    talked().save(path, model="demo", params={})
    assert path.read_text().startswith(
        "**System**\n\nBe brief.\n\n**You**\n\none?\n\n**Model**\n\n1"
    )


@pytest.mark.parametrize("content", [b"{", b'{"messages": 3}', b'{"messages":[],"x":1}', b"\xff"])
def test_another_file_is_no_conversation(tmp_path, content):
    path = tmp_path / "talk.json"
    path.write_bytes(content)
    with pytest.raises(InvalidRequest, match="no saved conversation"):
        Conversation.load(path)


def test_what_has_no_end_is_refused():
    with pytest.raises(InvalidRequest, match="/dev/zero has more than 67,108,864 bytes"):
        Conversation.load(Path("/dev/zero"))


def test_a_file_that_cannot_be_read_or_written_says_why(tmp_path):
    with pytest.raises(InvalidRequest, match="No such file"):
        Conversation.load(tmp_path / "absent.json")
    with pytest.raises(InvalidRequest, match="No such file"):
        talked().save(tmp_path / "absent" / "talk.md", model="", params={})
