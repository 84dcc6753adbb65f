"""Ideas behind the engine, and words that newcomers ask about."""

from __future__ import annotations

from demo_data.base import topic

TOPICS = [
    topic(
        "batching",
        """
        <whatis> [continuous batching|batching|a batch]
        how does [batching|continuous batching] work
        how are [requests|prompts] batched
        why are [many|several] prompts [faster|quicker] together
        how can many requests run at once
        when does a request join the batch
        does a new request wait for the batch to end
        """,
        """Continuous batching decodes all running requests together, one token each per step.
        Requests join and leave between steps, so a short answer never waits for a long one.""",
        "step|batch; join|leave|together",
    ),
    topic(
        "paged_kv",
        """
        <whatis> [paged KV|paged attention|a KV block|the paged cache]
        <whatis> [the KV cache|a KV cache|KV cache]
        what are keys and values
        how is the KV cache organised
        how big is a block
        why is the cache paged
        what is stored for each token
        """,
        """The KV cache holds the keys and values of every token that was read, so that they are not
        computed again. It is paged: cut into blocks of 16 tokens that are given to sequences as
        they grow.""",
        "keys and values; blocks",
    ),
    topic(
        "prefix_cache",
        """
        <whatis> [the prefix cache|prefix caching|a prefix cache]
        how does [prefix caching|the prefix cache] work
        why is the second [identical|same|equal] prompt faster
        why was my second prompt so fast
        is a [shared|common] prompt computed [again|twice]
        are prompts cached
        can others see my cached prompts
        <how> turn off the prefix cache
        """,
        """The prefix cache keeps the blocks of earlier prompts: when a new prompt begins with the
        same tokens, they are not computed again and the first token comes sooner. It never changes
        the answer; `--no-prefix-cache` at the start turns it off.""",
        "same tokens|again; blocks|cache",
    ),
    topic(
        "chunked_prefill",
        """
        <whatis> [chunked prefill|prefill|a prefill chunk]
        does a long prompt [slow down|stall|block] [others|other streams|everyone]
        what happens while a long prompt is read
        how are long prompts handled
        why does a long prompt not stop the others
        what is the token budget
        """,
        """Prefill is the reading of a prompt. A long prompt is read in chunks under a token budget
        per step, so running streams go on meanwhile.""",
        "chunks; budget|streams",
    ),
    topic(
        "preemption",
        """
        <whatis> preemption
        what happens when [the blocks run out|the KV cache is full|the cache is full|there are no free blocks]
        what does preempted mean
        why was my request preempted
        is work lost when a request is preempted
        no free blocks
        """,
        """When the blocks run out, the youngest running sequence is preempted: it gives its blocks
        back, waits and is recomputed later. Its answer does not change.""",
        "youngest|gives its blocks; recomputed",
    ),
    topic(
        "fairness",
        """
        is the scheduling fair
        can one user [block|starve] [the others|everybody]
        <whatis> fairness
        who goes first
        how does the scheduler choose
        in which order are requests served
        does one notebook get everything
        """,
        """The scheduler takes clients in turn, running answers first, and passes no runnable request
        over for more than 64 steps.""",
        "turn|64 steps",
    ),
    topic(
        "engine_step",
        """
        what happens in [a step|one step|an engine step]
        <whatis> [a step|the engine|the scheduler]
        how does the engine work
        what does the [engine|scheduler] do
        explain the decode loop
        what are the parts of a worker
        """,
        """The engine works in steps: schedule who runs, run the model once for all of them, sample
        one token each, and deliver the tokens to the clients.""",
        "schedule; sample",
    ),
    topic(
        "token",
        """
        <whatis> [a token|tokens]
        what does token mean
        how long is a token
        is a token a word
        tokens
        how many words is a token
        """,
        """A token is a piece of text, often a short word or a part of one, that the model reads and
        writes in one go. The tokenizer turns text into token ids.""",
        "piece of text",
    ),
    topic(
        "tokens_per_second",
        """
        <whatis> [tokens per second|tokens/s|throughput]
        what does tokens/s mean
        what is a good speed
        <how> make it [faster|quicker]
        why is it [so slow|slow]
        the model is slow
        speed up generation
        """,
        """Tokens per second is how fast text is written. Several requests at once give more in
        total; a smaller model, nf4 and a GPU make each one faster.""",
        "tokens per second",
    ),
    topic(
        "ttft",
        """
        <whatis> [time to first token|TTFT|the time to first token]
        what does time to first token mean
        why does the first token take [long|longer]
        how long until the first word
        what is latency here
        """,
        """Time to first token is how long it takes from sending a request to its first token: the
        wait in the queue plus the reading of the prompt.""",
        "first token; queue|prompt",
    ),
    topic(
        "detokenize_half",
        """
        why does an emoji come late
        can a stream contain half a character
        how are emoji streamed
        why are some characters held back
        is text ever cut in the middle of a character
        """,
        """A character can span several tokens, so the text is held back until the character is
        complete; a stream never contains half of one.""",
        "character; complete|held back",
    ),
    topic(
        "slow_reader",
        """
        what if I read a stream [slowly|too slowly]
        what happens when a client [is slow|stops reading|does not read]
        what is credit
        how far can a stream run ahead
        does a slow reader slow down the others
        """,
        """A stream may run 1024 tokens ahead of its reader; then it is paused, and after 30 s it is
        cut with SlowConsumer. Other streams are not slowed down.""",
        "paused; SlowConsumer",
    ),
    topic(
        "vanished_client",
        """
        what happens to my request when [my kernel dies|my notebook closes|the client vanishes|I lose the connection]
        does the model go on writing when I close the notebook
        is a request cancelled when the client is gone
        a client disappeared
        the script that asked was killed
        """,
        """When a client is gone its requests are cancelled in the worker and their memory is free
        within one step; the model stays loaded.""",
        "cancelled",
    ),
    topic(
        "terminal_message",
        """
        how does a request end
        can a request hang forever
        what are the ways a request can end
        does every request get an answer
        will I wait for ever
        """,
        """Every request ends in exactly one of: finished, cancelled, refused or failed. Nobody waits
        for ever, even when the worker dies.""",
        "finished; refused",
    ),
    topic(
        "exactness",
        """
        is the output the same as in transformers
        does batching change the answer
        are the answers exact
        does the prefix cache change the answer
        does my answer depend on other requests
        is it equal to transformers generate
        """,
        """In float32, greedy output equals transformers' `generate` token for token, alone or in a
        batch, cached or not. In bfloat16 and 4 bit, rounding may change a token.""",
        "float32; transformers",
    ),
    topic(
        "streaming_word",
        """
        <whatis> streaming
        what does streaming mean
        why stream at all
        what is the difference between stream and generate
        stream or generate
        """,
        """Streaming shows text while it is generated. `llm.stream` yields pieces as they come and
        `llm.generate` waits for the whole answer.""",
        "stream; generate",
    ),
    topic(
        "chat_template",
        """
        <whatis> a chat template
        what does a chat template do
        why do I need a chat template
        what if a model has no chat template
        where does the chat template come from
        """,
        """A chat template turns a list of messages into the text that a model was trained on, with
        its special tokens. It comes with the model; `llm.chat` applies it.""",
        "messages; special tokens",
    ),
]
