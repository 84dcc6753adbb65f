"""Conversations as data: branches, paths, what a model is told, files."""

from __future__ import annotations

import itertools
import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from llmkernel.errors import InvalidRequest
from llmkernel.notebook.panel import archive
from llmkernel.notebook.panel.attachments import from_text
from llmkernel.notebook.panel.conversation import Conversation
from llmkernel.notebook.panel.transcript import fingerprint, transcript


def talk(*texts: str) -> Conversation:
    """Question, answer, question and so on."""
    conversation = Conversation("Talk")
    after = None
    for number, text in enumerate(texts):
        after = conversation.add("assistant" if number % 2 else "user", text, after).id
    return conversation


def said(conversation: Conversation) -> list[str]:
    return [turn.text for turn in conversation.path]


def test_an_edited_question_is_a_branch_beside_the_first():
    conversation = talk("one", "two", "three")
    new = conversation.rewrite(conversation.path[0].id, "other")
    assert said(conversation) == ["other"]
    assert conversation.branches(new.id).index(new.id) == 1
    conversation.step(new.id, -1)
    assert said(conversation) == ["one", "two", "three"]


def test_the_arrows_stop_at_the_ends():
    conversation = talk("one")
    turn = conversation.path[0].id
    conversation.step(turn, 1)
    conversation.step(turn, -1)
    assert said(conversation) == ["one"]


def test_each_branch_remembers_what_was_shown_after_it():
    conversation = talk("q", "a")
    question = conversation.path[0].id
    again = conversation.add("assistant", "b", question)
    other = conversation.rewrite(question, "r")
    conversation.add("assistant", "c", other.id)
    conversation.step(other.id, -1)
    assert said(conversation) == ["q", again.text]


def test_deleting_takes_what_followed_and_shows_a_neighbour():
    conversation = talk("q", "a", "more")
    answer = conversation.path[1].id
    conversation.add("assistant", "b", conversation.path[0].id)
    conversation.step(conversation.path[1].id, -1)
    conversation.remove(answer)
    assert said(conversation) == ["q", "b"]
    assert len(conversation.turns) == 2
    conversation.remove(conversation.path[0].id)
    assert conversation.path == []
    assert conversation.turns == {}


def test_messages_begin_with_the_system_text_and_quote_what_is_attached():
    conversation = talk("q", "a")
    conversation.system = "Be brief."
    conversation.path[0].attachments.append(from_text("notes.md", "a ``` fence"))
    system, question, answer = conversation.messages()
    assert system == {"role": "system", "content": "Be brief."}
    assert question["content"].endswith("\n\nq")
    assert "notes.md" in question["content"]
    assert "````" in question["content"], "the fence inside must not close the quotation"
    assert answer == {"role": "assistant", "content": "a"}
    assert len(conversation.messages(conversation.path[0].id)) == 2


@pytest.mark.parametrize(
    "wrong",
    [
        [{"role": "tool", "content": "x"}],
        [{"role": "user", "content": "x"}, {"role": "system", "content": "y"}],
        [{"role": "user"}],
        ["text"],
        [{"role": "user", "content": 3}],
    ],
)
def test_what_is_no_conversation_is_refused_and_changes_nothing(wrong):
    conversation = talk("q", "a")
    with pytest.raises(InvalidRequest):
        conversation.replace(wrong)
    assert said(conversation) == ["q", "a"]


def test_ids_are_never_used_again():
    conversation = talk("q", "a")
    before = set(conversation.turns)
    conversation.replace([{"role": "user", "content": "new"}])
    assert not before & set(conversation.turns)


# files -------------------------------------------------------------------------

TEXT = st.text(
    st.characters(blacklist_categories=("Cs", "Cc"), whitelist_characters="\n#`~ "), max_size=60
)


@given(st.lists(TEXT.filter(str.strip), min_size=1, max_size=6), TEXT)
def test_json_keeps_everything(texts, system):
    conversation = talk(*texts)
    conversation.system = system
    conversation.rewrite(conversation.path[0].id, "a branch")
    conversation.step(conversation.path[0].id, -1)
    conversation.path[0].attachments.append(from_text("f.py", "x = 1", "py"))
    facts = {"tokens": 3, "first": 0.25, "rate": 4.0, "reason": "stop", "prompt": 2, "cached": 0}
    conversation.path[-1].facts = facts
    again = Conversation("Other")
    archive.load(archive.to_json(conversation), again)
    assert said(again) == said(conversation)
    assert again.messages() == conversation.messages()
    assert again.name == "Talk"
    assert len(again.turns) == len(conversation.turns)
    assert again.path[-1].facts == facts
    assert archive.to_json(again) == archive.to_json(conversation)


@pytest.mark.parametrize(
    "facts",
    [
        *('{"first": "abc"}', '{"first": -5}', '{"first": 1e999}', '{"rate": NaN}'),
        *('{"tokens": {}}', '{"tokens": 1e30}', '{"tokens": 0.5}', '{"reason": 5}', "5", "[]"),
    ],
)
@pytest.mark.parametrize("version", [1, 2])
def test_figures_that_are_none_are_refused(facts, version):
    turn = f'{{"role": "user", "text": "", "facts": {facts}}}'
    with pytest.raises(InvalidRequest, match="This is no conversation: Expected"):
        archive.load(
            f'{{"format": "llmkernel-conversation", "version": {version}, "turns": [{turn}]}}',
            Conversation("Other"),
        )


def test_a_conversation_may_have_any_number_of_turns():
    conversation = talk(*map(str, range(3000)))
    again = Conversation("Other")
    archive.load(archive.to_json(conversation), again)
    assert said(again) == said(conversation)


OLD = """{"format": "llmkernel-conversation", "version": 1, "name": "Old", "shown": 0, "turns": [
 {"role": "user", "text": "q", "shown": 1, "children": [
  {"role": "assistant", "text": "a", "children": [{"role": "user", "text": "more"}], "shown": 0},
  {"role": "assistant", "text": "b"},
  {"role": "assistant", "text": "c"}]},
 {"role": "user", "text": "r"}]}"""


def test_a_file_of_the_first_version_is_read():
    again = Conversation("Other")
    archive.load(OLD, again)
    assert (again.name, said(again), len(again.turns)) == ("Old", ["q", "b"], 6)
    again.step(again.path[1].id, -1)
    assert said(again) == ["q", "a", "more"]


@pytest.mark.parametrize("parent", ["0", "1", "-1", "true", '"0"'])
def test_a_turn_follows_one_before_it(parent):
    turn = f'{{"role": "user", "text": "", "parent": {parent}}}'
    whole = f'{{"format": "llmkernel-conversation", "version": 2, "turns": [{turn}]}}'
    conversation = talk("kept")
    with pytest.raises(InvalidRequest):
        archive.load(whole, conversation)
    assert said(conversation) == ["kept"]


def test_a_file_that_is_nested_without_end_is_refused():
    for text in ("[" * 200_000, '{"turns": ' * 200_000):
        with pytest.raises(InvalidRequest):
            archive.load(text, Conversation("Other"))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[" * 200_000 + "]" * 200_000, "It is nested too deeply to be a conversation."),
        (
            '[{"role": "user", "content": 1%s}]' % ("0" * 6000),
            "It has a number of too many digits.",
        ),
        ('{"turns": [1,]}', "This is no JSON: "),
    ],
)
def test_a_file_is_refused_in_words_about_the_file(text, why):
    with pytest.raises(InvalidRequest, match="^" + re.escape(why)) as refused:
        archive.load(text, Conversation("Other"))
    assert "sys." not in str(refused.value)
    assert "recursion" not in str(refused.value)


LINES = st.sampled_from(
    [
        *("", "```", "````", "~~~", "```py", "```a`b", " ```", "# x", "a\rb", "\r"),
        *("<!-- closed -->", "<!-- closed! -->", "<!-- llmkernel-conversation -->"),
        *("## You", "### Model", "## system \r", "## user", "\r## You", "a\u2028## You"),
        *("a\x0b## You", "## \u017fystem"),
    ]
)
ANY = st.one_of(
    st.lists(LINES, max_size=8).map("\n".join),
    st.text(st.characters(blacklist_categories=("Cs",)), max_size=30),
)


@settings(max_examples=500)
@given(st.lists(ANY, max_size=6), ANY)
def test_markdown_brings_the_shown_turns_back_exactly(texts, system):
    conversation = talk(*texts)
    conversation.system = system
    again = Conversation("Other")
    archive.load(archive.to_markdown(conversation), again)
    assert again.messages() == conversation.messages()
    assert again.name == "Talk"


@pytest.mark.parametrize("text", ["```py\nopen", "~~~~\n```\n", "```a`b", "text"])
def test_a_page_of_markdown_has_a_heading_for_each_turn(text):
    tokens = MarkdownIt().parse(archive.to_markdown(talk("q", text, "q2", "```\nx\n```")))
    pairs = itertools.pairwise(tokens)
    titles = [text.content for heading, text in pairs if heading.type == "heading_open"]
    assert titles == ["Talk", "You", "Model", "You", "Model"]


@pytest.mark.parametrize("ends", ["\n", "\r\n"])
def test_markdown_of_somebody_else_is_read(ends):
    lines = [
        "## You",
        "",
        "q",
        "",
        "## Model",
        "```",
        "## You",
        "```",
        "## user",
        "```a`b",
        "## Model",
    ]
    again = Conversation("Other")
    archive.load(ends.join([*lines, "```", "never closed", "## You", "last"]), again)
    assert said(again) == ["q", "```\n## You\n```", "```a`b", "```\nnever closed", "last"]


def test_a_file_of_ours_may_come_back_with_the_line_ends_of_windows():
    conversation = talk("q\n\nr", "a")
    again = Conversation("Other")
    archive.load(archive.to_markdown(conversation).replace("\n", "\r\n"), again)
    assert said(again) == said(conversation)


def test_a_file_may_begin_with_a_mark_of_its_bytes():
    again = Conversation("Other")
    archive.load("\ufeff" + archive.to_json(talk("q")), again)
    assert said(again) == ["q"]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "The file is empty"),
        ("\ufeff \n", "The file is empty"),
        ("null", "the JSON has neither messages nor turns"),
        ("5", "the JSON has neither messages nor turns"),
        ("\ufffdPNG\r\n\x1a\n\0", "no text in UTF-8"),
        ("\ufffd\ufffd{\0}\0", "no text in UTF-8"),
    ],
)
def test_a_file_of_another_kind_is_refused_with_the_reason(text, why):
    with pytest.raises(InvalidRequest, match=why):
        archive.load(text, Conversation("Other"))


def test_an_answer_that_a_person_changed_is_marked_wherever_it_stands():
    conversation = talk("q", "a", "## Model (edited)", "b")
    conversation.rewrite(conversation.path[0].id, "asked anew")
    assert not conversation.path[0].edited, "questions are a person's anyway"
    conversation.step(conversation.path[0].id, -1)
    same = conversation.rewrite(conversation.path[3].id, "b")
    assert not same.edited
    conversation.rewrite(same.id, "better")
    marks = [False, False, False, True]
    assert [turn.edited for turn in conversation.path] == marks
    for write in (archive.to_json, archive.to_markdown):
        again = Conversation("Other")
        archive.load(write(conversation), again)
        assert [turn.edited for turn in again.path] == marks
        assert said(again) == ["q", "a", "## Model (edited)", "better"]
    bundle = transcript(conversation)
    assert "Model (edited)</div>" in bundle["text/html"]
    assert "**Model (edited)**\n\nbetter" in bundle["text/markdown"]
    assert "Model (edited): better" in bundle["text/plain"]


def test_headings_inside_an_answer_are_not_turns():
    conversation = talk("q", "## You\n\nsaid\n\n```\n## Model\n```\n## Results\n### You")
    again = Conversation("Other")
    archive.load(archive.to_markdown(conversation), again)
    assert said(again) == said(conversation)


def test_a_list_of_messages_is_a_conversation_too():
    again = Conversation("Other")
    archive.load(json.dumps([{"role": "user", "content": "hi"}]), again)
    assert said(again) == ["hi"]


@pytest.mark.parametrize(
    "text",
    ["{", '{"format": "x", "version": 1}', "{}", "just words", '{"format": 3}', "[1]"]
    + [
        f'{{"format": "llmkernel-conversation", "version": 1, "turns": [{turn}]}}'
        for turn in (
            '{"role": "tool", "text": ""}',
            '{"role": "user"}',
            '{"role": "user", "text": "", "attachments": [{}]}',
        )
    ],
)
def test_another_file_is_refused(text):
    with pytest.raises(InvalidRequest):
        archive.load(text, Conversation("Other"))


def test_another_file_is_refused_with_what_can_be_read():
    for text in ("{", "{}", "just words"):
        with pytest.raises(InvalidRequest, match="exported can be read, as JSON or as Markdown"):
            archive.load(text, Conversation("Other"))


# the transcript ----------------------------------------------------------------


def test_a_transcript_says_all_in_three_forms_and_runs_nothing():
    conversation = talk("q <b>", "**bold** <script>alert(1)</script>")
    conversation.path[1].state = "stopped"
    bundle = transcript(conversation)
    assert "<script>" not in bundle["text/html"]
    assert "<strong>bold</strong>" in bundle["text/html"]
    assert "<script>" not in bundle["text/markdown"]
    assert bundle["text/plain"].endswith("(stopped)")


def test_a_question_stands_in_a_transcript_as_it_was_typed():
    conversation = talk("one\n*two* $x$ <b>", "a $x$")
    conversation.path[0].attachments.append(from_text("f.py", "x = 1", "py"))
    html = transcript(conversation)["text/html"]
    assert "one&#10;*two* $x$ &lt;b&gt;</div>" in html
    assert "<p>one" not in html, "margins of the page"
    assert "background-color" in html.partition("<pre")[2].partition(">")[0], "the page's is white"
    assert "<p>a $x$</p>" in html, "for MathJax"


def test_the_same_conversation_has_the_same_transcript():
    assert transcript(talk("q", "a")) == transcript(talk("q", "a"))
    assert fingerprint(talk("q", "a")) != fingerprint(talk("q", "b2"))
