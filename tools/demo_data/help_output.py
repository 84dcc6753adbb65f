"""What a cell shows, the other magics, and conversations in a notebook."""

from __future__ import annotations

from demo_data.base import topic

TOPICS = [
    topic(
        "stats_line",
        """
        what is the [line|small line|quiet line|grey line] under the answer
        what do the [numbers|statistics|figures] under [the answer|a cell] mean
        where do I see [tokens per second|the speed|the time to first token|statistics]
        <how> [see|measure|know] how fast [it|the model|the answer] [is|was]
        <how> see the number of tokens
        how fast was my answer
        where are the statistics
        speed of the last answer
        """,
        """One quiet line under the answer gives the tokens, the tokens per second and the time to
        first token; the same numbers are in the output's metadata and in `answer.timings`.""",
        "tokens per second|timings",
    ),
    topic(
        "safe_output",
        """
        is the output [safe|escaped|sanitised|sanitized]
        can the model run [JavaScript|code|scripts] in my notebook
        what happens to HTML [in the answer|in model output|]
        is model output trusted
        does the notebook run HTML that the model writes
        why is HTML shown as text
        is it dangerous to show what a model writes
        """,
        """Model output is untrusted: raw HTML is escaped, `javascript:` and `data:` links are
        removed and no remote image is fetched, so an answer cannot run anything in your notebook.""",
        "escaped",
    ),
    topic(
        "updates",
        """
        how often is the output updated
        why does the text come in small pieces
        how does streaming work in a notebook
        does the answer stream
        do I see the text while it is written
        can I watch the answer appear
        25 updates a second
        """,
        """Answers stream: the text appears as it is generated, in at most 25 updates a second, so
        that the browser stays quick.""",
        "stream",
    ),
    topic(
        "llm_config",
        """
        <whatdoes> %llm config do
        <how> [set|change] [defaults|default options|the default temperature] [for the notebook|for all cells|]
        <how> see the [settings|configuration] of the magics
        can I set a default for %%generate
        <how> avoid typing the same options in every cell
        configure llmkernel
        """,
        """`%llm config` shows the defaults of this notebook, and for example
        `%llm config -t 0 -n 200` sets them for every `%%generate` cell that does not say otherwise.""",
        "%llm config",
    ),
    topic(
        "llm_help",
        """
        <whatdoes> %llm [help|] do
        which [commands|subcommands] does %llm [have|know]
        what are the %llm commands
        <how> get help [in a notebook|on the magics|on %llm]
        list the %llm commands
        which magics [are there|exist|does llmkernel have]
        where is the help in the notebook
        """,
        """`%llm help` lists them: `%llm start`, `list`, `status`, `use`, `stop`, `logs`, `config`
        and `help`. `%llm help generate` shows the options of the cell magic.""",
        "%llm help|%llm start",
    ),
    topic(
        "conversation",
        """
        does %%generate remember [the last cell|earlier cells|what I asked before]
        <how> have a conversation [in a notebook|with the model|]
        <how> ask a follow-up question
        does the model remember [what I said|earlier questions|my last prompt]
        is there a chat history
        <how> keep the [history|context] of a chat
        why does the model forget what I said
        multi-turn chat
        """,
        """Each `%%generate` cell stands alone. For a conversation pass the whole list of messages
        to `llm.chat(messages)`, or use `llmkernel chat` in a terminal, which keeps the history.""",
        "llm.chat|llmkernel chat",
    ),
]
