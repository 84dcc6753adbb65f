"""The Python interface: Client, Generation, Delta, and the async face."""

from __future__ import annotations

from demo_data.base import topic

TOPICS = [
    topic(
        "start_python",
        """
        <how> start a <worker> from <python>
        <how> [launch|load] a model [from|in] <python>
        <whatdoes> llmkernel.start do
        which Python function starts a worker
        <how> start it with import llmkernel
        python api to start a model
        what arguments does llmkernel.start take
        what does start() return
        """,
        """In Python: `llm = llmkernel.start("Qwen/Qwen3-4B", quantization="nf4")`, or
        `llmkernel.start()` for the demo model. It returns a Client when the worker is ready, and
        attaches if it already runs.""",
        "llmkernel.start",
    ),
    topic(
        "generate_python",
        """
        <how> generate text [from|in] <python>
        <how> [ask|prompt|call|query] the model from <python>
        <whatdoes> [llm.generate|generate()|client.generate] do
        <how> use llm.generate
        give me a Python example
        what does [generate|llm.generate] return
        <how> get an answer in <python>
        show me the [Python API|API]
        simplest python code to get an answer
        """,
        """Use `out = llm.generate("Once upon a time", max_tokens=64)`; `str(out)` or `out.text` is
        the text. `generate` sends the text as it is, `llm.chat` applies the chat template.""",
        "llm.generate",
    ),
    topic(
        "stream_python",
        """
        <how> stream [an answer|text|tokens|the output] [from|in] <python>
        <how> [get|print|receive] [tokens|text|the answer] [one by one|as it comes|as they come|token by token|piece by piece] [in Python|]
        <whatdoes> [llm.stream|stream()] do
        <how> use llm.stream
        <how> print text while it is generated
        streaming in Python
        give me a streaming example
        is there a streaming API
        """,
        """Loop over it: `for delta in llm.stream("Hello"): print(delta.text, end="")`. Each Delta has
        the new text and its token ids; leaving the loop cancels the request. `llm.stream_chat(messages)` does it with the
        chat template.""",
        "llm.stream",
    ),
    topic(
        "chat_python",
        """
        <how> chat [from|in] <python>
        <how> send [messages|a conversation|a list of messages] [from Python|]
        <whatdoes> [llm.chat|chat()] do
        <how> use llm.chat
        <how> use roles like user and assistant
        <how> apply the chat template
        what is the format of messages
        <how> pass earlier messages
        chat with messages in Python
        """,
        """Pass the messages: `llm.chat([{"role": "user", "content": "Hello"}])`. The roles are
        system, user and assistant, and the chat template of the model is applied.""",
        "llm.chat; role|template",
    ),
    topic(
        "map",
        """
        <how> [run|send|ask|process] [many|a list of|a thousand|hundreds of|several] prompts [at once|in one go|together|]
        <how> [process|run over|annotate] [a list|a pandas series|a data frame|a column|a dataset]
        <whatdoes> [llm.map|map()] do
        <how> use llm.map
        <how> [batch|parallelise|parallelize] [prompts|requests]
        <how> get answers for [a whole list|many texts|all rows]
        <how> show a progress bar over many prompts
        batch processing
        fastest way to answer many prompts
        I have [1000|500|many] questions to run
        """,
        """`llm.map(prompts, progress=True)` takes a list or a pandas Series and returns the answers
        in order; the worker decodes them in one batch and a bar shows the progress.""",
        "llm.map",
    ),
    topic(
        "map_failure",
        """
        what [if|happens if|happens when] one prompt [fails|of many fails] in [map|llm.map]
        does llm.map stop at [an error|a failure|the first error]
        what does map do with failures
        one bad prompt in a list
        are errors in map raised
        <how> find failed prompts after map
        """,
        """A failure stays in its place: `llm.map` returns the exception at that position and all
        other answers are complete.""",
        "place; map",
    ),
    topic(
        "score",
        """
        <how> [score|rate] a text
        <whatdoes> [llm.score|score()] do
        <how> get the [log-probabilities|probability|likelihood|perplexity] of a [text|sentence|given text]
        <how> measure how likely a [text|sentence] is
        compute perplexity
        which sentence is more likely
        """,
        """`llm.score(text)` returns the log-probability of each token of a given text; nothing is
        generated.""",
        "llm.score",
    ),
    topic(
        "tokenize",
        """
        <how> [tokenize|tokenise|count the tokens of] [a text|text|a prompt]
        <how> count tokens
        how many tokens does my [text|prompt] have
        <whatdoes> [llm.tokenize|tokenize()|llm.detokenize|detokenize] do
        <how> turn [text into token ids|token ids into text|ids back into text]
        <how> see the tokens of a text
        <how> know whether my prompt fits
        length of my prompt in tokens
        """,
        """`ids = llm.tokenize(text)` gives the token ids, `len(ids)` counts them, and
        `llm.detokenize(ids)` turns them back into text.""",
        "llm.tokenize",
    ),
    topic(
        "aio",
        """
        <how> use [asyncio|async|await] [with llmkernel|]
        is there an async [API|client|interface]
        <whatis> [llm.aio|aio|.aio]
        <how> await an answer
        <how> call it from [async code|a coroutine|an event loop]
        does it work with asyncio
        async generation
        <how> use it in a web server with async
        """,
        """Use `.aio`, the same surface with await: `out = await llm.aio.generate("Hello")`, and
        `async for delta in llm.aio.stream(...)`. The plain calls work inside a running event loop
        too.""",
        "aio",
    ),
    topic(
        "generation_object",
        """
        <whatis> [a Generation|the Generation object|the Generation class]
        which [fields|attributes] does [a Generation|the result|the answer] have
        what is in the result [of generate|]
        what can I read from a Generation
        <how> get the [text|token ids|finish reason|usage|timings] of an answer
        where is the finish reason
        result object
        attributes of the answer object
        """,
        """A Generation is the result of a request: `.text`, `.token_ids`, `.finish_reason`,
        `.usage`, `.timings` and `.logprobs`; `str()` of it is the text.""",
        "Generation; finish_reason",
    ),
    topic(
        "delta",
        """
        <whatis> a Delta
        what is in a delta
        what does stream yield
        which [fields|attributes] does a Delta have
        what do I get in each step of a stream
        delta object
        """,
        """A Delta is one piece of a stream: `.text` is the new text and `.token_ids` are the new
        tokens.""",
        "Delta; text",
    ),
    topic(
        "finish_reason",
        """
        <whatis> [the finish reason|finish_reason]
        what does finish_reason [mean|say]
        what does finish_reason length mean
        which finish reasons are there
        <how> know why the answer [ended|stopped]
        why did the answer end
        <how> see whether the answer was cut
        """,
        """`finish_reason` says why an answer ended: `stop` (the model ended or a stop text came),
        `length` (max_tokens or the context was reached), `cancelled` or `error`.""",
        "stop; length",
    ),
    topic(
        "usage",
        """
        <how> see how many tokens [were used|I used|an answer used|it took]
        <whatis> usage
        what is in [usage|.usage|out.usage]
        what are cached tokens
        what does prompt_tokens mean
        token usage
        what is the difference between prompt tokens and completion tokens
        """,
        """`.usage` counts prompt_tokens (read), cached_tokens (of those, already in the prefix
        cache) and completion_tokens (written).""",
        "usage; prompt_tokens|completion_tokens",
    ),
    topic(
        "threads",
        """
        is the client thread safe
        can I [use|call] [the client|llm] from [several|many|other] threads
        do calls work inside a running event loop
        <how> use it from threads
        is it safe to share a client between threads
        thread safety
        """,
        """Yes, one Client may be used from any number of threads, and the plain calls also work
        inside a running event loop.""",
        "threads",
    ),
    topic(
        "token_prompt",
        """
        can a prompt be [token ids|a list of ids|tokens]
        <how> send token ids [instead of text|]
        can I pass ids to generate
        prompt as a list of integers
        do I have to send text
        """,
        """A prompt is text or a list of token ids: `llm.generate([1, 2, 3])` is sent as it is,
        without the tokenizer.""",
        "token ids",
    ),
    topic(
        "import_time",
        """
        why is import llmkernel so [fast|quick]
        does import llmkernel load torch
        is the import slow
        how long does the import take
        does the client need torch
        do I need torch in my notebook environment
        """,
        """`import llmkernel` takes well under half a second: only the worker imports torch, so a
        client needs neither torch nor transformers.""",
        "torch; worker|client",
    ),
]
