"""`llmkernel generate`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from llmkernel.cli import answers, console
from llmkernel.cli.failure import INTERRUPTED, Command
from llmkernel.cli.names import worker_option
from llmkernel.cli.prompt import piped, typed
from llmkernel.errors import InvalidRequest
from llmkernel.options.sampling import sampling_options, sampling_values
from llmkernel.params import SamplingParams

if TYPE_CHECKING:
    from llmkernel.client import Client
    from llmkernel.client.generation import Generation
    from llmkernel.client.streams import Stream


@click.command("generate", cls=Command)
@click.argument("prompt", required=False)
@worker_option
@click.option("--system", metavar="TEXT", help="What the model is told before the prompt.")
@click.option(
    "--raw",
    is_flag=True,
    help="Send the text as it is, without the chat template, for the model to continue.",
)
@click.option(
    "--stream/--no-stream",
    default=None,
    help="Write the answer as it comes, or at the end. With --json the end is the default, and "
    "--stream is NDJSON: a line for each piece, then the whole.",
)
@click.option("--stats", is_flag=True, help="Tokens, speed and time to first token at the end.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@sampling_options()
@click.pass_context
def generate_command(
    context: click.Context,
    /,
    prompt: str | None,
    worker: str | None,
    system: str | None,
    raw: bool,
    stream: bool | None,
    stats: bool,
    as_json: bool,
    **sampling: Any,
) -> None:
    """Answer PROMPT, or what comes through a pipe.

    The prompt is a user's turn in a conversation where the model has a chat template, unless
    --raw is given. "-" reads it from standard input, and so does leaving it out in a pipe; one
    newline at its end is dropped. Ctrl-C stops the answer and keeps what has come.

    \b
        llmkernel generate "What is 17 + 25?" -t 0
        git diff | llmkernel generate - --system "Summarise this change." -n 200
        llmkernel generate --raw "Once upon a time" --samples 3 --json
    """
    from llmkernel import connection
    from llmkernel.client import Client

    params = _checked(sampling, as_json=as_json, raw=raw, system=system)
    text = _text(prompt)
    with Client(connection.find(worker)) as client:
        plain = raw or (system is None and not answers.has_chat_template(client))
        turns = None if plain else answers.as_turns(text, system and typed(system))
        begun = answers.ask(client, text, turns, params)
        output = _Output(client, begun, params, streamed=stream, as_json=as_json)
        finished = output.run()
        if stats and not as_json:
            answers.write_statistics(begun.generation)
        elif not as_json:
            answers.write_cut(begun.generation, params)
    if not finished:
        context.exit(INTERRUPTED)


class _Output:
    """Reads one stream to its end in the way that was asked for."""

    def __init__(
        self,
        client: Client,
        stream: Stream,
        params: SamplingParams,
        *,
        streamed: bool | None,
        as_json: bool,
    ) -> None:
        self._client = client
        self._stream = stream
        self._as_json = as_json
        # several answers at once would be told apart by nobody
        together = as_json or params.n == 1
        self._streamed = together and (not as_json if streamed is None else streamed)

    def run(self) -> bool:
        """Whether the answer is whole; False after an interrupt, what came being written."""
        try:
            self._read()
        except KeyboardInterrupt as stop:
            self._stream.close()
            self._end("cancelled", getattr(stop, "partial", None) or self._stream.generation)
            return False
        self._end("finished", self._stream.generation)
        return True

    def _read(self) -> None:
        if self._streamed and not self._as_json:
            answers.write_stream(self._stream)
            return
        for delta in self._stream:
            if self._streamed:
                console.json_line(answers.delta_record(delta))

    def _end(self, kind: str, answer: Generation) -> None:
        if self._as_json:
            first = {"type": kind} if self._streamed else {}
            console.json_line(first | answers.record(answer, self._client))
        elif not self._streamed:
            answers.write_whole(answer)


def _checked(
    sampling: dict[str, Any], *, as_json: bool, raw: bool, system: str | None
) -> SamplingParams:
    """The parameters. Raises InvalidRequest before anything is read or sent."""
    params = SamplingParams.build(**sampling_values(sampling))
    if raw and system is not None:
        raise InvalidRequest("--raw sends no conversation, so --system has no place in it.")
    if not as_json and (params.logprobs is not None or params.prompt_logprobs is not None):
        raise InvalidRequest("Log-probabilities are written with --json.")
    return params


def _text(prompt: str | None) -> str:
    if prompt is not None and prompt != "-":
        return typed(prompt)
    if prompt is None and sys.stdin.isatty():
        raise click.UsageError("Give a PROMPT, or pipe one in.")
    text = piped()
    if not text.strip():
        raise InvalidRequest("There is no prompt: standard input is empty.")
    return text
