"""How people word a question: openings, synonyms, typing mistakes, politeness."""

from __future__ import annotations

import re
import string
from random import Random

from demo_data.base import expand

SLOTS: dict[str, list[str]] = {
    "how": (
        "how do I|how do I|how can I|how can I|how to|how to|how do you|how would I|how should I|"
        "how does one|how might I|how could I|how am I supposed to|what is the way to|what's the way to|"
        "what is the best way to|what's the easiest way to|what do I do to|what do I type to|"
        "what do I write to|what must I do to|what should I do to|what do I have to do to|"
        "which command do I use to|which command lets me|what command do I need to|what is the command to|"
        "I want to|I need to|I would like to|I'd like to|I am trying to|I wish to|I have to|"
        "is there a way to|is there any way to|is it possible to|can I|could I|may I|can you help me|"
        "show me how to|tell me how to|explain how to|teach me how to|please help me|help me|"
        "do you know how to|any idea how to|I do not know how to|I don't know how to|I forgot how to|"
        "where do I go to|what are the steps to|give me the steps to|what lets me|"
        "what would I use to|what do I use to|what can I use to|what is used to|let me"
    ).split("|"),
    "whatis": (
        "what is|what is|what's|what is|what exactly is|what do you mean by|explain|explain to me|"
        "tell me about|describe|define|can you explain|could you describe|what do you know about|"
        "I do not understand|I don't get|help me understand|give me a definition of|what about|"
        "tell me what is|I have heard of|what is the meaning of|what is meant by|say something about|"
        "in simple words, what is|in a sentence, what is|what on earth is|why is there"
    ).split("|"),
    "whatdoes": (
        "what does|what does|what does the|tell me what|explain what|what will|can you say what|"
        "I wonder what|do you know what|please explain what"
    ).split("|"),
    "worker": (
        "worker|worker|worker|worker|worker process|llmkernel worker|model server|server|"
        "model process|background worker|running worker"
    ).split("|"),
    "cell": (
        "cell|cell|notebook cell|%%generate cell|generation|request|prompt|answer|response|reply"
    ).split("|"),
    "notebook": "notebook|notebook|Jupyter notebook|Jupyter|JupyterLab|cell|magic".split("|"),
    "terminal": (
        "terminal|terminal|command line|shell|console|CLI|bash|command prompt|terminal window"
    ).split("|"),
    "python": "Python|Python|a Python script|Python code|a script|a program|my code|the API".split(
        "|"
    ),
    "model": "model|model|language model|LLM|chat model|AI model|checkpoint|network".split("|"),
    "inllm": ["", "", "", "in llmkernel", "with llmkernel", "using llmkernel", "here", "please"],
}

ROUGH = 0.35
"""Share of questions that lose, swap and gain words."""

_SYNONYM_SETS = """
stop halt cancel abort interrupt kill end quit terminate break
start launch run boot begin create
show display see view print
list enumerate show
change set modify adjust alter tweak
use employ apply
make produce create
write compose
find locate discover
see view check look
get obtain receive fetch
give pass supply provide
limit restrict cap bound
save store keep put
answer reply response output result text
answers replies responses outputs results
prompt question input request
prompts questions inputs requests
several many multiple lots
quick fast rapid
big large huge
small little tiny
need require
happens occurs
error exception failure problem
wrong amiss broken
computer machine box
folder directory
option flag switch parameter
options flags switches parameters
allowed permitted
connect attach join
remove delete
finish complete end
random arbitrary
explain describe clarify
notebooks kernels
variable name value
longest maximum max
memory RAM space
choose pick select
turn switch
"""
SYNONYMS: dict[str, list[str]] = {}
for _line in _SYNONYM_SETS.strip().splitlines():
    for _word in _line.split():
        SYNONYMS.setdefault(_word, []).extend(w for w in _line.split() if w != _word)

_BEFORE = (
    "please |hi, |hello, |hey, |hey |ok, |so |well, |quick question: |question: |um, |excuse me, |"
    "tell me, |sorry, |now |I wonder, |one more thing: |and |also, |newbie here: |a question: |hi! "
).split("|")
_AFTER = (
    " please| thanks|, please| ?|??| in llmkernel| with llmkernel| now| exactly| again| quickly|"
    " today| for me|, thank you| - any hint|!|, anyone| then| here| really"
).split("|")
_FILLERS = (
    "really|just|actually|maybe|now|then|so|also|simply|quickly|always|currently|the|a|my|some|this|"
    "that|it|all|here|there|please|exactly|possibly|somehow|again|still|even|well|basically|today"
).split("|")
_CONTEXTS = (
    "I am new to this.|I have a question.|I am working on a project.|I read the README.|Hello there.|"
    "I use JupyterLab.|I work with a team.|I tried a few things.|Sorry for asking.|Just curious.|"
    "My boss wants to know.|I am a student.|I have a deadline.|I was wondering.|Small question."
).split("|")
_DROPPABLE = frozenset("a an the do I is to of my it does can in on for me this that".split())
_WORD = re.compile(r"[A-Za-z]+|[^A-Za-z]+")


def ask(rng: Random, template: str) -> str:
    """A question worded from a template, as a person might type it."""
    text = _with_synonyms(rng, expand(rng, template, SLOTS), 0.12)
    if rng.random() < 0.15:
        text = rng.choice(_BEFORE) + text
    if rng.random() < 0.15:
        text = text.rstrip("?") + rng.choice(_AFTER)
    if rng.random() < 0.08:
        text = _drop_words(rng, text)
    if rng.random() < ROUGH:
        text = roughen(rng, text)
    if rng.random() < 0.15:
        text = _mistype(rng, text)
    return punctuate(rng, text)


def roughen(rng: Random, text: str) -> str:
    """`text` with words lost, swapped and put in: it teaches to weigh every word of a question.

    Without it a small model decides by the first words that tell its few templates apart.
    """
    words = [word for word in text.split() if rng.random() > 0.12]
    if len(words) < min(3, len(text.split())):
        return text
    for at in range(len(words) - 1):
        if rng.random() < 0.06:
            words[at], words[at + 1] = words[at + 1], words[at]
    for _ in range(rng.choice((0, 0, 0, 1, 1, 2))):
        words.insert(rng.randint(0, len(words)), rng.choice(_FILLERS))
    if rng.random() < 0.12:
        words.insert(0, rng.choice(_CONTEXTS))
    return " ".join(words)


def punctuate(rng: Random, text: str) -> str:
    """`text` with a capital and a question mark, mostly."""
    text = text.strip()
    style = rng.random()
    if style < 0.62:
        text = text[0].upper() + text[1:]
    elif style < 0.68:
        text = text.lower()
    elif style < 0.69:
        text = text.upper()
    if text[-1].isalnum() and rng.random() < 0.7:
        text += "?" if rng.random() < 0.85 else "."
    return text


def _with_synonyms(rng: Random, text: str, share: float) -> str:
    pieces = _WORD.findall(text)
    for index, piece in enumerate(pieces):
        # words inside code such as `--stop` or %llm stay as they are
        guarded = index > 0 and pieces[index - 1][-1] in "-%_.`/"
        if not guarded and piece in SYNONYMS and rng.random() < share:
            pieces[index] = rng.choice(SYNONYMS[piece])
    return "".join(pieces)


def _drop_words(rng: Random, text: str) -> str:
    words = text.split()
    kept = [word for word in words if word not in _DROPPABLE or rng.random() < 0.3]
    return " ".join(kept) if len(kept) >= 2 else text


def _mistype(rng: Random, text: str) -> str:
    at = rng.randrange(len(text))
    if text[at] not in string.ascii_letters:
        return text
    kind = rng.randrange(4)
    if kind == 0:
        return text[:at] + text[at + 1 :] if len(text) > 4 else text
    if kind == 1:
        return text[:at] + text[at] + text[at:]
    if kind == 2:
        return text[:at] + rng.choice(string.ascii_lowercase) + text[at + 1 :]
    return text[:at] + text[at : at + 2][::-1] + text[at + 2 :]
