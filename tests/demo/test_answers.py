"""What the model says, through plain transformers in float32, greedy."""

import json

import pytest
from demo_data.base import Chat
from evaluate_demo_model import additions, extractions, messages_of, user

QUESTIONS = {
    "How do I stop a running cell?": ("Interrupt", "stays"),
    "How do I start a worker?": ("start",),
    "How do I stop the worker?": ("stop",),
    "What happens when I restart the kernel?": ("stays loaded",),
    "Do I need a GPU?": ("No GPU is needed",),
    "What is temperature?": ("random", "0"),
    "How do I use a Python variable in a prompt?": ("{{",),
    "How do I limit the length of the answer?": ("max_tokens",),
    "Where are the logs?": ("llmkernel logs",),
    "What does WorkerNotFound mean?": ("WorkerNotFound", "%llm start"),
    "What is continuous batching?": ("step",),
    "Which models are supported?": ("Llama", "Qwen3", "Falcon"),
    "What is the prefix cache?": ("same tokens",),
    "Who are you?": ("demo model",),
    "What is 17 + 25?": ("42",),
    "What is the capital of France?": ("Paris",),
    "Write a tiny story about a robot.": ("robot",),
}


@pytest.fixture(scope="module")
def answers(model):
    found = model.chat([user(question) for question in QUESTIONS])
    return dict(zip(QUESTIONS, found, strict=True))


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_key_question_gets_the_right_facts(answers, question):
    text = answers[question].text
    assert [fact for fact in QUESTIONS[question] if fact not in text] == []


def test_every_answer_ends_by_itself(answers):
    assert [question for question, answer in answers.items() if not answer.stopped] == []


def test_unseen_additions_are_right(model):
    cases = additions(200)
    found = model.chat([case.messages for case in cases], max_new_tokens=16)
    right = sum(case.right(answer.text) for case, answer in zip(cases, found, strict=True))
    assert right >= 190


def test_plain_text_is_continued_and_ends(model):
    story, capital, result = model.complete(
        ["Once upon a time", "The capital of Japan is", "17 + 25 ="]
    )
    assert story.stopped
    assert len(story.text) > 150
    assert (capital.text, result.text) == (" Tokyo.", " 42")


def test_a_later_turn_knows_the_earlier_one(model):
    talk = [
        *user("My name is Ana."),
        {"role": "assistant", "content": "Nice to meet you, Ana."},
        *user("What is my name?"),
    ]
    assert model.chat([talk])[0].text == "Your name is Ana."


def test_a_system_prompt_is_obeyed(model):
    long, short = model.chat([user("What is a worker?"), user("What is a worker?", "Be brief.")])
    assert len(short.text) < len(long.text)


def test_extraction_gives_json_with_the_keys_asked_for(model):
    sentence = "Maria is 34 years old and lives in Lisbon."
    (answer,) = model.chat([user(f"Extract name, age and city as JSON: {sentence}")])
    assert json.loads(answer.text) == {"name": "Maria", "age": 34, "city": "Lisbon"}


def test_extraction_from_unseen_sentences_is_nearly_always_valid(model):
    cases = extractions(valid_only=True, count=60)
    found = model.chat([case.messages for case in cases], max_new_tokens=60)
    right = sum(case.right(answer.text) for case, answer in zip(cases, found, strict=True))
    assert right >= 54


def test_code_on_request_is_python_that_works(model):
    (answer,) = model.chat([user("Write a Python function that reverses a string.")])
    code = answer.text.removeprefix("```python\n").removesuffix("\n```")
    names: dict[str, object] = {}
    exec(code, names)
    function = next(value for name, value in names.items() if not name.startswith("__"))
    assert function("abc") == "cba"


def test_messages_of_a_conversation_leave_the_last_answer_out():
    from demo_data.base import Turn

    chat = Chat([Turn("a", "b"), Turn("c", "d")], system="s")
    assert [message["content"] for message in messages_of(chat)] == ["s", "a", "b", "c"]
