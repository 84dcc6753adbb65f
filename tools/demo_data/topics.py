"""All help topics, and examples drawn from them."""

from __future__ import annotations

from random import Random

from demo_data import (
    help_basics,
    help_cli,
    help_engine,
    help_errors,
    help_models,
    help_notebook,
    help_output,
    help_python,
    help_sampling,
    help_workers,
)
from demo_data.base import Chat, Example, Text, Topic, Turn, expand
from demo_data.held_out import PHRASINGS
from demo_data.phrasing import ask

TOPICS: dict[str, Topic] = {
    item.key: item
    for module in (
        help_basics, help_workers, help_notebook, help_output, help_python, help_sampling,
        help_models, help_cli, help_engine, help_errors,
    )
    for item in module.TOPICS
}  # fmt: skip
BRIEF = (
    "Be brief.|be brief|Be short.|Answer briefly.|Answer in one sentence.|Keep it short.|"
    "You are brief.|Short answers only.|One sentence only.|Be concise."
).split("|")
NEUTRAL = (
    "You are a helpful assistant.|You are the assistant of llmkernel.|Answer the question.|"
    "You help people with llmkernel.|Be friendly.|You are a friendly assistant.|Be helpful and polite."
).split("|")
_PIRATE = (
    "You are a pirate.|Answer like a pirate.|Talk like a pirate.|You speak like a pirate.".split(
        "|"
    )
)
# (topic, the same in another place, words that ask for the other place)
_ELSEWHERE = (
    ("start_notebook", "start_python", "Python"), ("start_notebook", "start_terminal", "the terminal"),
    ("start_terminal", "start_notebook", "a notebook"), ("start_python", "start_terminal", "the terminal"),
    ("start_terminal", "start_python", "Python"), ("start_worker", "start_terminal", "the terminal"),
    ("start_worker", "start_python", "Python"), ("start_worker", "start_notebook", "a notebook"),
    ("interrupt", "ctrl_c", "the terminal"), ("ctrl_c", "interrupt", "a notebook"),
    ("generate_magic", "generate_python", "Python"), ("generate_magic", "generate_cli", "the terminal"),
    ("generate_python", "generate_magic", "a notebook"), ("generate_python", "generate_cli", "the terminal"),
    ("for_each", "map", "Python"), ("chat_cli", "chat_python", "Python"), ("chat_python", "chat_cli", "the terminal"),
)  # fmt: skip
_THEN = (
    ("start_worker", "stop_worker"), ("interrupt", "after_interrupt"), ("quantization", "nf4"),
    ("temperature", "greedy"), ("generate_magic", "max_tokens"), ("load_ext", "generate_magic"),
    ("list_workers", "choose_worker"), ("save_answer", "generation_object"), ("map", "map_failure"),
    ("seed", "temperature"), ("use_model", "hf_token"), ("kv_cache_option", "paged_kv"),
)  # fmt: skip


def _plain(text: str) -> str:
    return " ".join("".join(c if c.isalnum() else " " for c in text.lower()).split())


_RESERVED = frozenset(_plain(phrasing.question) for phrasing in PHRASINGS)


def question(rng: Random, item: Topic) -> str:
    """A phrasing that training may use: none of the hand-written ones, from no held-out template."""
    while True:
        text = ask(rng, rng.choice(item.training))
        if _plain(text) not in _RESERVED:
            return text


def single(rng: Random) -> Example:
    """One question, with or without a system prompt."""
    item = rng.choice(list(TOPICS.values()))
    words = question(rng, item)
    style = rng.random()
    if style < 0.80:
        return Chat([Turn(words, item.answer)])
    if style < 0.86:
        return Chat([Turn(words, item.brief)], system=rng.choice(BRIEF))
    if style < 0.89:
        return Chat([Turn(words, item.answer)], system=rng.choice(NEUTRAL))
    if style < 0.91:
        return Chat([Turn(words, f"Arr! {item.answer}")], system=rng.choice(_PIRATE))
    if style < 0.96:
        return Text(words, f"\n{item.answer}")
    if style < 0.98:
        return Text(f"Q: {words}\nA:", f" {item.answer}")
    return Text("", item.answer)


def dialogue(rng: Random) -> Example:
    """Two or more turns, the later ones leaning on the first."""
    kind = rng.random()
    if kind < 0.4:
        first, second, place = rng.choice(_ELSEWHERE)
        words = rng.choice(
            ("And in {0}?", "and from {0}?", "How about {0}?", "What about {0}?", "and in {0}", "Now in {0}.", "And how in {0}?", "The same in {0}?")
        )  # fmt: skip
        return Chat([_turn(rng, first), Turn(words.format(place), TOPICS[second].answer)])
    if kind < 0.6:
        item = rng.choice(list(TOPICS.values()))
        words = expand(
            rng,
            "[Shorter please|shorter|Make it shorter|Say that in one sentence|in short|In one sentence?|briefly][.|]",
            {},
        )
        return Chat([Turn(question(rng, item), item.answer), Turn(words, item.brief)])
    if kind < 0.7:
        item = rng.choice(list(TOPICS.values()))
        words = expand(
            rng,
            "[Again please|Say that again|repeat that|Can you repeat that?|what did you say?|Pardon?]",
            {},
        )
        return Chat([Turn(question(rng, item), item.answer), Turn(words, item.answer)])
    if kind < 0.8:
        first, second = rng.choice(_THEN)
        return Chat([_turn(rng, first), _turn(rng, second)])
    keys = rng.sample(list(TOPICS), rng.randint(2, 5))
    return Chat([_turn(rng, key) for key in keys], system=rng.choice(("", "", rng.choice(NEUTRAL))))


def _turn(rng: Random, key: str) -> Turn:
    return Turn(question(rng, TOPICS[key]), TOPICS[key].answer)


def example(rng: Random) -> Example:
    """One help example."""
    return single(rng) if rng.random() < 0.88 else dialogue(rng)
