"""The notebook: the extension, `%%generate`, its options, interrupts, prompts."""

from __future__ import annotations

from demo_data.base import topic

TOPICS = [
    topic(
        "load_ext",
        """
        <how> load the [extension|magics|notebook extension]
        <how> [enable|activate|turn on|get] [%%generate|the magics|the extension|%llm]
        <how> use llmkernel in [a notebook|Jupyter|JupyterLab|IPython]
        what does %load_ext llmkernel do
        %%generate is not found
        why is the cell magic %%generate not found
        UsageError: Cell magic %%generate not found
        UsageError: Line magic function %llm not found
        which extension do I load
        the magic does not exist
        first line of a notebook
        """,
        """Run `%load_ext llmkernel` once in the notebook. After that `%llm` and `%%generate` are
        there.""",
        "%load_ext llmkernel",
    ),
    topic(
        "generate_magic",
        """
        <how> [ask|prompt|query] the model [in|from] [a|my] notebook
        <how> generate text [in|from] a [notebook|cell]
        <whatis> %%generate
        <whatdoes> %%generate do
        <how> use %%generate
        <how> [send|give|write] a prompt [to the model|in a cell|in a notebook]
        <how> [talk|speak|chat] to the model in a notebook
        give me an example of %%generate
        which magic asks the model
        what do I write in a cell to get an answer
        generate magic
        """,
        """Put `%%generate` on the first line of a cell and your prompt below it, then run the cell.
        The answer streams in under the cell. Options go on the first line, for example
        `%%generate -n 100 -t 0.7`.""",
        "%%generate",
    ),
    topic(
        "generate_options",
        """
        which options does %%generate [have|take|know|accept]
        what options [are there for|can I give to|does] %%generate
        list [the|all] options of %%generate
        help for %%generate
        what are the [flags|arguments|switches] of %%generate
        <how> see all the options of %%generate
        can I pass options to %%generate
        """,
        """The options of `%%generate` are:\n\n- `-m NAME`: the worker\n- `-n N`: tokens at most\n-
        `-t T`: temperature\n- `--top-p`, `--top-k`, `--min-p`, `--seed`, `--stop`: sampling\n-
        `--system TEXT`, `--raw`: how the prompt is sent\n- `--samples N`, `--logprobs K`: more
        answers, log-probabilities\n- `--format`, `-o VAR`, `--for NAME in EXPR`, `--background`,
        `--quiet`: output\n\n`%llm help generate` shows all of them.""".replace(
            "-\n        ", "- "
        ).replace("\n        ", " "),
        "-n; -t",
    ),
    topic(
        "interrupt",
        """
        <how> [stop|interrupt|cancel|abort|halt|end|break] [a|the|my] [running|long|current|] <cell>
        <how> [stop|interrupt|cancel|abort] the model [while it writes|while it is answering|in the middle|when it talks too much]
        <how> [stop|cancel|interrupt] [it|generation|generating|an answer|the output|the text] [in a notebook|in Jupyter|]
        <how> make [it|the model] stop [writing|talking|generating|typing]
        [the model|it] [does not stop|won't stop|keeps writing|goes on and on|never ends|talks too much], what do I do
        the answer is too long, how do I [stop it|cut it off|cancel]
        which [button|key|keys] [stops|stop|interrupts|cancels] [a cell|generation|the answer]
        is there a stop button
        what is the [shortcut|key] to [stop|interrupt] [a cell|generation]
        stop a running cell
        cancel the request
        how can a running answer be [stopped|cancelled|interrupted|aborted]
        I want it to [stop|shut up|be quiet] now
        my cell [hangs|is stuck|runs too long|takes forever]
        interrupt generation
        """,
        """Press Interrupt: the stop button in the toolbar, or the keys I, I in command mode. The
        request is cancelled in the worker, the partial text stays, and the model stays loaded.""",
        "Interrupt|stop button; cancelled|stays",
    ),
    topic(
        "ctrl_c",
        """
        <how> [stop|interrupt|cancel|abort] [an answer|generation|a request|the model|it] in [the|a] <terminal>
        what does [Ctrl-C|ctrl c|Control-C|ctrl+c] do
        can I press [Ctrl-C|ctrl+c|control c]
        does [Ctrl-C|ctrl+c] kill the worker
        is it safe to press Ctrl-C
        interrupt llmkernel chat
        <how> cancel in the <terminal>
        """,
        """Press Ctrl-C: the request is cancelled, the partial text stays on the screen and
        KeyboardInterrupt is raised. The worker and its model are not touched.""",
        "Ctrl-C; cancelled",
    ),
    topic(
        "after_interrupt",
        """
        what happens [when|if|after] I interrupt a cell
        what happens [to the text|to the partial text|to the answer so far] [when I interrupt|after an interrupt|on cancel]
        is the [partial|unfinished] [text|answer] [kept|lost|gone] [after an interrupt|when I interrupt|]
        do I lose the [text|answer] [when I interrupt|if I cancel]
        does an interrupt [stop|kill|unload] the [worker|model]
        does [interrupting|cancelling|my interrupt] [disturb|affect|stop] other [notebooks|users|requests]
        do others notice when I [interrupt|cancel]
        is the model still loaded after an interrupt
        can I [run|use] the next cell after an interrupt
        why do I get KeyboardInterrupt
        what is KeyboardInterrupt
        """,
        """After an interrupt the partial text stays, the request is cancelled in the worker and
        KeyboardInterrupt is raised. The model stays loaded, the next cell works, and nobody else
        notices.""",
        "partial text; stays",
    ),
    topic(
        "max_tokens",
        """
        <how> [limit|shorten|restrict|control] the [length|size] of [the|an] [answer|output|text|reply]
        <how> get [shorter|longer] [answers|replies|output]
        <how> make [the|an] answer [shorter|longer]
        <how> set the [number of tokens|maximum number of tokens|token limit|answer length]
        <whatdoes> [-n|max_tokens|max tokens] [do|mean]
        <whatis> max_tokens
        why [is|was] [my|the] answer cut [off|short|]
        the answer [stops|ends] in the middle of a sentence
        how long can an answer be
        what is the default of max_tokens
        the text is cut off
        <how> allow more tokens
        """,
        """`%%generate -n 100` or `max_tokens=100` in Python ends the answer after at most 100
        tokens. Without it the answer may fill the context length; it normally stops by itself
        earlier.""",
        "max_tokens|-n",
    ),
    topic(
        "system_prompt",
        """
        <how> [give|set|add|use|change] a system [prompt|message]
        <whatis> [a system prompt|--system|the system prompt]
        <whatdoes> --system do
        <how> tell the model how to behave
        <how> give the model a [role|persona|character]
        <how> make the model [answer like a pirate|polite|brief|behave differently]
        where do I put the system message
        system prompt in %%generate
        standing instructions for the model
        """,
        """Use `%%generate --system "Be brief."` in a notebook, or a first message with the role
        `system` in `llm.chat`.""",
        "--system|system",
    ),
    topic(
        "raw",
        """
        <whatdoes> --raw do
        <whatis> --raw
        <how> send [a prompt|text] without [the chat template|a template|a chat template]
        <how> [continue|complete] [a text|my text|plain text] [instead of chatting|]
        <how> turn off the chat template
        does %%generate use the chat template
        <how> use a base model
        raw text completion
        text goes through without template
        """,
        """`%%generate --raw` sends your text as it is, without the chat template, and the model
        continues it. In Python `llm.generate` does the same, while `llm.chat` applies the template.""",
        "--raw",
    ),
    topic(
        "format",
        """
        <whatdoes> --format do
        <how> [show|get|display] [the answer|output] as [plain text|text|code|JSON|Markdown]
        <how> turn off Markdown
        which formats does %%generate know
        <how> get [plain text|code] [instead of Markdown|]
        is the [answer|output] [Markdown|rendered]
        output format
        """,
        """`%%generate --format markdown|text|code|json` says how the answer is shown: markdown is
        the default, text is shown as it is, code goes into a new cell, json is checked and
        indented.""",
        "--format",
    ),
    topic(
        "save_answer",
        """
        <how> [save|store|keep|put] [the|an] [answer|result|output|text] [in|into|to] a [variable|Python variable]
        <how> [use|get|access] the answer [in Python|in the next cell|later|in another cell]
        <whatdoes> -o [VAR|] do
        <whatis> -o in %%generate
        <how> get [the|an] answer [as a variable|out of %%generate]
        <how> assign the output [of %%generate|] to a name
        where does the answer go
        can I reuse the answer in Python
        answer into a variable
        <how> work with the result of a %%generate cell
        """,
        """`%%generate -o answer` stores the result in the variable `answer`; it is a Generation, so
        `str(answer)` and `answer.text` give the text.""",
        "-o",
    ),
    topic(
        "for_each",
        """
        <how> [run|ask|send] [a|one|the same] prompt [for|over] [each|every item|many values|a list] [in a list|]
        <whatdoes> --for do
        <whatis> --for
        <how> loop over [a list|values|items] in %%generate
        <how> [repeat|run] a cell for [each item|every element|many inputs]
        can %%generate [loop|iterate]
        one prompt for every row
        """,
        """`%%generate --for NAME in EXPR` asks the prompt once for each item of EXPR, with
        `{{ NAME }}` filled in; the worker decodes them in one batch.""",
        "--for",
    ),
    topic(
        "background",
        """
        <whatdoes> --background do
        <how> run [a cell|%%generate|a prompt] in the background
        <how> [keep|go on] working while [the model|it] [answers|writes|generates]
        <how> generate without blocking [the notebook|the kernel|]
        can I run other cells while the model writes
        does %%generate block the notebook
        non-blocking generation
        """,
        """`%%generate --background` returns at once and the answer comes while you run other
        cells; with `-o VAR` the variable holds a handle to it.""",
        "--background",
    ),
    topic(
        "quiet",
        """
        <whatdoes> --quiet do
        <how> [hide|suppress|silence] the [output|answer|text|statistics]
        <how> run %%generate without [showing|printing] [anything|the answer]
        <how> not show the answer
        can I turn the output off
        no output please, only the variable
        """,
        """`%%generate --quiet` shows nothing; use it with `-o VAR` to keep the answer in a
        variable.""",
        "--quiet",
    ),
    topic(
        "samples",
        """
        <how> get [several|many|two|three|more than one|different] [answers|samples|replies|versions] [to one prompt|for the same prompt|]
        <whatdoes> [--samples|n] do
        <whatis> [--samples|the parameter n]
        <how> generate [several|multiple] [answers|alternatives|variants] at once
        <how> [ask for|see] alternatives
        more than one answer per prompt
        can I get five answers
        """,
        """`%%generate --samples 3` gives three answers to one prompt; in Python it is `n=3`. It
        needs a temperature above 0, because greedy answers are all the same.""",
        "--samples|n=3",
    ),
    topic(
        "template",
        """
        <how> use [a Python variable|a variable|my variable|Python values|my data] in [a|the] prompt
        <how> [insert|put|include|interpolate] [a variable|a value|an expression|my data] [into|in] [a|the|my] prompt
        <whatdoes> [double braces|double curly braces|{{ }}|two braces] [do|mean]
        can a prompt contain [Python|a variable|an expression]
        <how> pass [data|a variable|a data frame] to the model
        what are the braces for
        variables in prompts
        does %%generate know my variables
        prompt templates
        """,
        """Write `{{ expression }}` in the prompt: it is evaluated once in your notebook's namespace
        by Jinja2 and its value is put in. Single braces stay as they are.""",
        "{{",
    ),
    topic(
        "single_braces",
        """
        <how> write [braces|a brace|JSON|a dictionary|curly braces] in a prompt
        do [single braces|braces|curly braces] [need|have] to be escaped
        are single braces special
        what happens to [single braces|JSON|{ and }] in a prompt
        can my prompt contain [JSON|LaTeX|C code|curly braces]
        must I escape braces
        """,
        """Single braces stay as they are, so JSON, LaTeX and code need no escaping; only double
        braces are evaluated, and with `--literal` not even those.""",
        "single braces",
    ),
    topic(
        "undefined_name",
        """
        what if a [name|variable] in [the|my] [prompt|template] [is undefined|does not exist|is not defined]
        the prompt says a name is undefined
        what happens with an undefined variable in {{ }}
        undefined variable in a prompt
        my variable is not found in the prompt
        """,
        """An undefined name in `{{ }}` is an error that names it, and nothing is sent to the model.
        Define the variable and run the cell again.""",
        "error|undefined; names it|define",
    ),
    topic(
        "completion",
        """
        does Tab [completion|] work
        <how> complete [options|names] [with Tab|]
        which things complete with Tab
        is there [auto completion|autocomplete|tab completion]
        what does the Tab key do
        can it suggest the options while I type
        """,
        """Yes: Tab completes the options of `%%generate` and `%llm`, the worker names and your
        variables.""",
        "Tab; options|completes",
    ),
]
