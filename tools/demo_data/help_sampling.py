"""Sampling parameters. Ranges come from `llmkernel.params`, so they cannot drift."""

from __future__ import annotations

from demo_data.base import topic
from llmkernel.params import BOUNDS, LOGIT_BIAS, MAX_STOPS


def _range(name: str) -> str:
    return str(BOUNDS[name])


TOPICS = [
    topic(
        "temperature",
        """
        <whatis> temperature
        <whatis> the temperature
        <whatdoes> [temperature|-t|the temperature] do
        <how> [set|change|raise|lower|control] the temperature
        <how> make [answers|the answer|the model|it] [more|less] [creative|random|varied|wild|boring|surprising]
        <how> [raise|lower|control] the randomness
        what temperature should I use
        which temperatures are allowed
        what is the default temperature
        why are the answers different each time
        why do I get another answer every time
        temperature
        """,
        f"""Temperature says how random the choice of tokens is: 0 always takes the likeliest token,
        1 is the model's own distribution, more is wilder. Set it with `-t 0.7` or
        `temperature=0.7`, {_range("temperature")}.""",
        "temperature; -t|temperature=",
    ),
    topic(
        "greedy",
        """
        <how> get [the same answer every time|deterministic answers|deterministic output|no randomness]
        <how> [make|turn] [the answer|the output|generation] deterministic
        <how> [turn off|switch off|avoid|disable] [randomness|sampling]
        <whatis> greedy [decoding|sampling|]
        what does temperature 0 [do|mean]
        <how> always take the likeliest token
        <how> decode greedily
        I want reproducible answers without a seed
        what is argmax decoding
        """,
        """Use `-t 0` or `temperature=0`: the likeliest token always wins, so the same prompt gives
        the same answer.""",
        "-t 0|temperature=0|temperature 0",
    ),
    topic(
        "seed",
        """
        <whatis> [a seed|the seed|--seed]
        <whatdoes> [seed|--seed] do
        <how> [set|use|fix] [a|the] seed
        <how> [repeat|reproduce|get back] [a random answer|the same random answer|a sampled answer|an answer]
        <how> make [random answers|sampling] reproducible
        does the seed depend on [the batch|other requests|other notebooks]
        is sampling reproducible
        same random text again
        do I get the same text with the same seed
        """,
        """`--seed 7` or `seed=7` gives the same random tokens again, whatever else is in the batch.
        Without a seed each request draws a fresh one.""",
        "seed; same",
    ),
    topic(
        "top_p",
        """
        <whatis> [top_p|top-p|top p|nucleus sampling|--top-p]
        <whatdoes> [top_p|--top-p|top p] do
        <how> [set|use] [top_p|nucleus sampling|top p]
        what values may top_p have
        explain nucleus sampling
        how does top p work
        """,
        f"""`top_p` keeps the smallest set of tokens whose probability reaches p and drops the rest
        (nucleus sampling). Use `--top-p 0.9` or `top_p=0.9`, {_range("top_p")}.""",
        "smallest set",
    ),
    topic(
        "top_k",
        """
        <whatis> [top_k|top-k|top k|--top-k]
        <whatdoes> [top_k|--top-k|top k] do
        <how> [set|use] [top_k|top k]
        <how> keep only the [k|ten|fifty] likeliest tokens
        what values may top_k have
        how does top k work
        """,
        """`top_k` keeps the k most likely tokens; 0 keeps all. Use `--top-k 40` or `top_k=40`.""",
        "most likely",
    ),
    topic(
        "min_p",
        """
        <whatis> [min_p|min-p|min p|--min-p]
        <whatdoes> [min_p|--min-p|min p] do
        <how> [set|use] [min_p|min p]
        what values may min_p have
        how does min p work
        """,
        f"""`min_p` keeps the tokens that are at least min_p times as likely as the likeliest one.
        Use `--min-p 0.05` or `min_p=0.05`, {_range("min_p")}.""",
        "at least min_p times",
    ),
    topic(
        "typical_p",
        """
        <whatis> [typical_p|typical sampling|locally typical sampling|typical p]
        <whatdoes> typical_p do
        <how> [set|use] [typical_p|typical sampling]
        how does typical p work
        """,
        """`typical_p` is locally typical sampling: it keeps the tokens whose surprise is nearest to
        the expected one, up to probability mass p. 1 turns it off.""",
        "typical",
    ),
    topic(
        "repetition_penalty",
        """
        <whatis> [repetition_penalty|the repetition penalty|repetition penalty]
        <whatdoes> repetition_penalty do
        <how> [avoid|stop|prevent|reduce] [repetition|repetitions|repeating|loops]
        the model [repeats itself|says the same thing again and again|loops|is repeating]
        <how> make it repeat itself less
        it repeats the same [word|sentence|line] over and over
        what value should repetition_penalty have
        """,
        """`repetition_penalty` above 1, for example 1.1, makes tokens less likely that were already
        seen in the prompt or the answer; 1 is off. It is the first thing to try when a model
        repeats itself.""",
        "repetition_penalty",
    ),
    topic(
        "presence_penalty",
        """
        <whatis> [presence_penalty|frequency_penalty|the presence penalty|the frequency penalty]
        <whatdoes> [presence_penalty|frequency_penalty|the presence penalty|the frequency penalty] do
        what is the difference between presence_penalty and frequency_penalty
        which values may presence_penalty have
        <how> use the frequency penalty
        presence versus frequency penalty
        """,
        f"""`presence_penalty` lowers the score of every token already in the answer once,
        `frequency_penalty` once per time it occurred. Both go {_range("presence_penalty")}; 0 is
        off.""",
        "presence_penalty; frequency_penalty",
    ),
    topic(
        "logit_bias",
        """
        <whatis> [logit_bias|a logit bias]
        <whatdoes> logit_bias do
        <how> [forbid|ban|force|favour] [a word|a token|certain words|certain tokens]
        <how> use logit_bias
        <how> make a token [more|less] likely
        prevent a certain word
        """,
        f"""`logit_bias={{token_id: bias}}` adds a bias to the scores of those tokens, {LOGIT_BIAS}:
        -100 bans a token and 100 forces it. `llm.tokenize` gives the ids.""",
        "logit_bias",
    ),
    topic(
        "stop_strings",
        """
        <how> [stop|end] the answer at [a word|a certain word|a text|a new line|the first line]
        <whatis> [a stop string|stop|--stop|a stop text|stop strings]
        <whatdoes> [--stop|the stop parameter|a stop string] do
        <how> use [stop strings|--stop|stop texts]
        how many stop texts may I give
        is the stop text part of the answer
        <how> end at the first empty line
        stop sequences
        does the answer contain the stop string
        """,
        f"""`--stop TEXT` or `stop=["TEXT"]` ends the answer before the first of these texts, which
        is left out of the result. Up to {MAX_STOPS} texts may be given.""",
        "--stop|stop=",
    ),
    topic(
        "stop_token_ids",
        """
        <whatis> stop_token_ids
        <whatdoes> stop_token_ids do
        <how> stop at a certain token id
        can I stop at a token instead of a text
        """,
        """`stop_token_ids=[...]` ends the answer when one of these token ids is drawn, as the end
        of sequence token does.""",
        "stop_token_ids",
    ),
    topic(
        "ignore_eos",
        """
        <whatis> [ignore_eos|min_tokens]
        <whatdoes> [ignore_eos|min_tokens] do
        <how> make the answer at least [100|20|n] tokens long
        <how> [force|get] a minimum length
        <how> make the model go on after the end token
        the answer ends too early
        the answers are too short
        """,
        """`min_tokens=20` forbids the end of sequence for the first 20 tokens, and
        `ignore_eos=True` goes on until max_tokens is reached.""",
        "min_tokens; ignore_eos",
    ),
    topic(
        "best_of",
        """
        <whatis> best_of
        <whatdoes> best_of do
        <how> get the best of several answers
        <how> use best_of
        what is the difference between n and best_of
        <how> choose the likeliest of many answers
        """,
        """`best_of=4` generates four answers and returns the n with the highest mean
        log-probability.""",
        "best_of; highest",
    ),
    topic(
        "logprobs",
        """
        <whatis> [logprobs|--logprobs|log probabilities]
        <whatdoes> [logprobs|--logprobs] do
        <how> [see|get] [the probability|probabilities|log-probabilities|logprobs] of [each token|the tokens|the answer]
        <how> see which other tokens were likely
        how sure is the model
        <how> see the alternatives of a token
        how confident was the model
        """,
        """`logprobs=3` returns the log-probability of each generated token and of the three
        likeliest alternatives; in a notebook it is `%%generate --logprobs 3`.""",
        "logprobs; log-probability",
    ),
    topic(
        "prompt_logprobs",
        """
        <whatis> prompt_logprobs
        <whatdoes> prompt_logprobs do
        <how> get log-probabilities of the prompt
        what is max_tokens 0 for
        can max_tokens be 0
        probabilities of the prompt tokens
        """,
        """`prompt_logprobs=0` returns the log-probability of each prompt token; with `max_tokens=0`
        nothing is generated.""",
        "prompt_logprobs",
    ),
    topic(
        "skip_special_tokens",
        """
        <whatis> skip_special_tokens
        <whatdoes> skip_special_tokens do
        <how> see special tokens in the answer
        why are special tokens not shown
        are special tokens left out
        """,
        """Special tokens are left out of the text by default; `skip_special_tokens=False` shows
        them.""",
        "special tokens",
    ),
    topic(
        "sampling_order",
        """
        in which order are the sampling parameters applied
        what is the order of temperature, top_k and top_p
        what is applied first, temperature or top p
        which sampling parameters are there
        list all sampling parameters
        what are the names of the sampling parameters
        what can I tune
        """,
        """The order is: repetition, frequency and presence penalty, logit_bias, min_tokens,
        temperature, typical_p, top_k, top_p, min_p, then the draw.""",
        "temperature; top_k; top_p",
    ),
    topic(
        "good_settings",
        """
        which settings are good for [code|facts|sums|arithmetic]
        what settings should I use for [stories|creative writing|code|facts]
        recommend [sampling settings|some settings|a temperature]
        good values for temperature and top p
        what are sensible defaults
        """,
        """For facts, sums and code use `-t 0`. For stories try `-t 0.8 --top-p 0.95`. Change one
        thing at a time and keep a `--seed` while you compare.""",
        "-t 0",
    ),
]
