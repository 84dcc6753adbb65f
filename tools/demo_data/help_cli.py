"""The command line."""

from __future__ import annotations

from demo_data.base import topic

TOPICS = [
    topic(
        "cli",
        """
        which commands does [the CLI|llmkernel|the command line] have
        what commands are there [in the terminal|]
        <how> use llmkernel [from|in] the <terminal>
        list [the|all] [commands|CLI commands|terminal commands]
        what can I do in the <terminal>
        is there a [command line|CLI|terminal] [tool|program|interface|]
        llmkernel --help
        command line help
        """,
        """The commands are `llmkernel start`, `list`, `status`, `generate`, `chat`, `stop`, `logs`,
        `pull`, `doctor`, `demo` and `bench`. `llmkernel COMMAND --help` explains each.""",
        "start; status; doctor",
    ),
    topic(
        "chat_cli",
        """
        <how> chat in [the|a] <terminal>
        <how> [talk|speak] to the model in [the|a] <terminal>
        <whatdoes> llmkernel chat do
        <whatis> llmkernel chat
        <how> have a conversation in the <terminal>
        is there a terminal chat
        can I chat without a notebook
        """,
        """`llmkernel chat` opens a conversation in the terminal: type a line, the answer streams, the
        history is kept, Ctrl-C stops an answer and Ctrl-D leaves.""",
        "llmkernel chat",
    ),
    topic(
        "generate_cli",
        """
        <how> generate text [from|in] the <terminal>
        <how> ask [one question|the model|a question] from the <terminal>
        <whatdoes> llmkernel generate do
        one answer in a shell script
        <how> use it in a [shell script|pipeline|Makefile]
        terminal command for one prompt
        """,
        """`llmkernel generate "your prompt"` prints the answer as it comes; with `--json` it prints
        one JSON object for scripts.""",
        "llmkernel generate",
    ),
    topic(
        "doctor",
        """
        <whatis> llmkernel doctor
        <whatdoes> [llmkernel doctor|doctor|the doctor] do
        <how> [check|see] [my machine|what my machine has|my GPU|my setup|the driver|my installation]
        is my GPU [found|detected|seen|supported]
        which [GPU|driver] do I have
        <how> see whether CUDA works
        something is wrong with my setup
        diagnose my machine
        versions of the libraries
        """,
        """`llmkernel doctor` tells what this machine has: GPU, driver, free memory, library versions,
        and which model sizes fit at 4 bit.""",
        "llmkernel doctor",
    ),
    topic(
        "json_option",
        """
        <how> get [JSON|machine readable output|output for a script] from the [CLI|commands|command line]
        <whatdoes> --json do
        <how> use the [CLI|commands] in a script
        <how> parse the output of llmkernel [list|status]
        machine readable status
        """,
        """Add `--json` to a command such as `llmkernel list --json` or `llmkernel status --json`, and
        it prints JSON for scripts.""",
        "--json",
    ),
    topic(
        "jupyter_command",
        """
        what is jupyter llmkernel
        does jupyter llmkernel work
        is there a Jupyter subcommand
        can I type jupyter llmkernel start
        difference between jupyter llmkernel and llmkernel
        """,
        """`jupyter llmkernel` is the same program as `llmkernel`, as a Jupyter subcommand.""",
        "same program",
    ),
    topic(
        "bench",
        """
        <how> [measure|benchmark|test] the speed
        <whatdoes> llmkernel bench do
        <whatis> llmkernel bench
        <how> run a benchmark
        how fast is [my machine|my GPU|it on my machine]
        <how> measure tokens per second
        benchmark
        """,
        """`llmkernel bench` measures tokens per second and time to first token of a worker at several
        numbers of streams.""",
        "llmkernel bench",
    ),
    topic(
        "demo_cli",
        """
        <whatdoes> llmkernel demo do
        <whatis> llmkernel demo
        <how> see a demonstration in the <terminal>
        run the demo from the <terminal>
        """,
        """`llmkernel demo` starts a worker with the embedded model, streams a few answers, decodes
        several prompts in one batch and prints the speed.""",
        "llmkernel demo",
    ),
]
