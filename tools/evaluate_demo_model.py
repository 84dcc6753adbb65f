"""Measure the embedded model on what its training never saw.

    python tools/evaluate_demo_model.py                      # the model in the package, on the CPU
    python tools/evaluate_demo_model.py --failures           # and what it got wrong

Float32, greedy unless said otherwise, transformers' own `generate`. All draws are
seeded, so the same weights print the same table.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from demo_data import arithmetic, dialogues, extraction, knowledge, stories
from demo_data.base import Chat, Topic, Turn
from demo_data.held_out import PHRASINGS
from demo_data.phrasing import SLOTS, expand, punctuate
from demo_data.topics import BRIEF, TOPICS
from transformers import AutoModelForCausalLM, AutoTokenizer

DEFAULT = Path(__file__).resolve().parents[1] / "llmkernel" / "demo"
SEED = 20_011
BATCH = 48
MAX_TOKENS = 420

Judge = Callable[[str], bool]


class Case(NamedTuple):
    """A conversation, and whether an answer to it is right."""

    messages: list[dict[str, str]]
    right: Judge


class Answer(NamedTuple):
    """What the model said and whether it ended by itself."""

    text: str
    stopped: bool


class Model:
    """The model under test behind transformers, in float32."""

    def __init__(self, folder: Path, device: str, dtype: torch.dtype = torch.float32) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
        self.network = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).to(device).eval()

    def chat(self, conversations: Sequence[list[dict[str, str]]], **options: Any) -> list[Answer]:
        """One answer to each conversation."""
        texts = [
            self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
            for messages in conversations
        ]
        return self.complete(texts, add_special_tokens=False, **options)

    def complete(
        self, texts: Sequence[str], add_special_tokens: bool = True, **options: Any
    ) -> list[Answer]:
        """One continuation of each text, in batches of similar length."""
        order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
        answers: dict[int, Answer] = {}
        for start in range(0, len(order), BATCH):
            chosen = order[start : start + BATCH]
            found = self._batch([texts[index] for index in chosen], add_special_tokens, options)
            answers.update(zip(chosen, found, strict=True))
        return [answers[index] for index in range(len(texts))]

    @torch.inference_mode()
    def _batch(self, texts: list[str], special: bool, options: dict[str, Any]) -> list[Answer]:
        inputs = self.tokenizer(
            texts, return_tensors="pt", padding=True, add_special_tokens=special,
            return_token_type_ids=False,
        ).to(self.network.device)  # fmt: skip
        options = {"max_new_tokens": MAX_TOKENS, "do_sample": False, **options}
        output = self.network.generate(**inputs, **options)[:, inputs["input_ids"].shape[1] :]
        end = self.tokenizer.eos_token_id
        return [
            Answer(self.tokenizer.decode(row, skip_special_tokens=True), bool((row == end).any()))
            for row in output
        ]


def user(text: str, system: str = "") -> list[dict[str, str]]:
    """A conversation of one question."""
    return messages_of(Chat([Turn(text, "")], system))


def messages_of(chat: Chat) -> list[dict[str, str]]:
    """The messages of a conversation up to its last question."""
    messages = [{"role": "system", "content": chat.system}] if chat.system else []
    for turn in chat.turns:
        messages.append({"role": "user", "content": turn.user})
        messages.append({"role": "assistant", "content": turn.assistant})
    return messages[:-1]


def equals(expected: str) -> Judge:
    """Right is exactly this text."""
    return lambda text: text == expected


def holds_facts(topics: Iterable[Topic]) -> Judge:
    """Right holds every fact of one of the topics, in any of its spellings."""
    wanted = [topic.facts for topic in topics]

    def right(text: str) -> bool:
        lower = text.lower()
        return any(
            all(any(word.lower() in lower for word in fact.split("|")) for fact in facts)
            for facts in wanted
        )

    return right


def additions(count: int = 1000) -> list[Case]:
    """Unseen pairs of two-digit numbers in the wordings of training."""
    rng = Random(SEED)
    pairs = rng.sample(arithmetic.held_out_pairs(), count)
    return [
        Case(user(rng.choice(arithmetic.ADD).format(a=a, b=b)), equals(f"{a} + {b} = {a + b}"))
        for a, b in pairs
    ]


def seen_sums(kind: str, count: int = 200) -> list[Case]:
    """Subtractions and products; of these none are held out."""
    rng = Random(SEED)
    cases = []
    for _ in range(count):
        if kind == "-":
            b, a = sorted((rng.randint(0, 99), rng.randint(0, 99)))
            cases.append(Case(user(f"What is {a} - {b}?"), equals(f"{a} - {b} = {a - b}")))
        else:
            a, b = rng.randint(0, 12), rng.randint(0, 12)
            cases.append(Case(user(f"What is {a} * {b}?"), equals(f"{a} * {b} = {a * b}")))
    return cases


def template_phrasings() -> list[Case]:
    """Two phrasings from each held-out template of each topic."""
    rng = Random(SEED)
    return [
        Case(user(punctuate(rng, expand(rng, template, SLOTS))), holds_facts([topic]))
        for topic in TOPICS.values()
        for template in topic.held_out
        for _ in range(2)
    ]


def hand_written_phrasings() -> list[Case]:
    """The hand-written questions."""
    return [
        Case(user(phrasing.question), holds_facts(TOPICS[key] for key in phrasing.topics))
        for phrasing in PHRASINGS
    ]


def brief_answers() -> list[Case]:
    """A system prompt that asks for brevity, with the first known wording of each topic."""
    rng = Random(SEED)
    return [
        Case(user(expand(rng, topic.training[0], SLOTS), rng.choice(BRIEF)), equals(topic.brief))
        for topic in TOPICS.values()
    ]


def unknown(count: int = 200) -> list[Case]:
    """Questions beyond the model."""
    rng = Random(SEED)
    drawn = [knowledge.outside(rng) for _ in range(count)]
    return [Case(messages_of(chat), equals(knowledge.UNKNOWN)) for chat in drawn if isinstance(chat, Chat)]  # fmt: skip


def recall(count: int = 200) -> list[Case]:
    """Something told in an earlier turn."""
    rng = Random(SEED)
    drawn = [dialogues.memory(rng) for _ in range(count)]
    return [
        Case(messages_of(chat), equals(chat.turns[-1].assistant))
        for chat in drawn
        if isinstance(chat, Chat)
    ]


def extractions(valid_only: bool, held_out: bool = True, count: int = 300) -> list[Case]:
    """Sentences to JSON, of a shape kept from training or not.

    Right is valid JSON with the right keys in order, or right altogether.
    """
    rng = Random(SEED)
    drawn = [extraction.request(rng, held_out) for _ in range(count)]
    return [Case(user(text), _json_judge(record, valid_only)) for text, record in drawn]


def _json_judge(record: extraction.Record, valid_only: bool) -> Judge:
    def right(text: str) -> bool:
        try:
            found = json.loads(text)
        except json.JSONDecodeError:
            return False
        if valid_only:
            return isinstance(found, dict) and list(found) == list(record)
        return bool(found == record)

    return right


SUITES: dict[str, Callable[[], list[Case]]] = {
    "two-digit additions, unseen pairs": additions,
    "subtractions": lambda: seen_sums("-"),
    "products up to 12 * 12": lambda: seen_sums("*"),
    "help, unseen templates": template_phrasings,
    "help, hand-written phrasings": hand_written_phrasings,
    "help, brief on request": brief_answers,
    "beyond the model, says so": unknown,
    "recall of an earlier turn": recall,
    "JSON, new names in known sentences: all right": lambda: extractions(False, held_out=False),
    "JSON, unseen sentences: valid, right keys": lambda: extractions(valid_only=True),
    "JSON, unseen sentences: all right": lambda: extractions(valid_only=False),
}


def stopping_rates(model: Model) -> dict[str, float]:
    """Share of answers that end by themselves, greedy and at temperature 1."""
    rng = Random(SEED)
    asked = [stories.asked(rng) for _ in range(60)]
    conversations = [messages_of(chat) for chat in asked if isinstance(chat, Chat)]
    conversations += [case.messages for case in hand_written_phrasings()]
    raw = [f"Once upon a time there was a {hero}" for hero in stories.HEROES[:40]]
    raw += ["Once upon a time", "def add(a, b):", "17 + 25 =", "The capital of France is", "Hello"]
    torch.manual_seed(SEED)
    rates = {}
    for name, options in (("greedy", {}), ("temperature 1", {"do_sample": True, "top_k": 0})):
        answers = model.chat(conversations, **options) + model.complete(raw, **options)
        rates[name] = sum(answer.stopped for answer in answers) / len(answers)
    return rates


def evaluate(model: Model, names: Iterable[str], show_failures: bool) -> None:
    """Print a Markdown table of the suites."""
    print("| held out | right | of | share |\n|---|---|---|---|")
    failures = []
    for name in names:
        cases = SUITES[name]()
        answers = model.chat([case.messages for case in cases])
        pairs = list(zip(cases, answers, strict=True))
        right = sum(case.right(answer.text) for case, answer in pairs)
        print(f"| {name} | {right} | {len(cases)} | {right / len(cases):.1%} |", flush=True)
        failures += [(name, case, answer) for case, answer in pairs if not case.right(answer.text)]
    for name, rate in stopping_rates(model).items():
        print(f"| stops by itself, {name} | | | {rate:.1%} |", flush=True)
    if show_failures:
        for name, case, answer in failures:
            print(f"\n[{name}] {case.messages[-1]['content']}\n  -> {answer.text}")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=DEFAULT)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), default="float32")
    parser.add_argument("--suite", choices=list(SUITES), action="append", help="only these")
    parser.add_argument("--failures", action="store_true", help="print the wrong answers too")
    arguments = parser.parse_args()
    model = Model(arguments.model, arguments.device, getattr(torch, arguments.dtype))
    evaluate(model, arguments.suite or list(SUITES), arguments.failures)


if __name__ == "__main__":
    main()
