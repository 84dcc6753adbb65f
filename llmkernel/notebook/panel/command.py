"""`%llm panel`: a chat panel as the output of a cell."""

from __future__ import annotations

from typing import Any

import click

from llmkernel.notebook.arguments import given, worker_option
from llmkernel.notebook.session import Session, with_session
from llmkernel.options.once import Once
from llmkernel.options.sampling import sampling_options, sampling_values

_NOT_HERE = {"n", "best_of", "logprobs", "prompt_logprobs", "min_tokens", "logit_bias"}


@click.command("panel", cls=Once, add_help_option=False)
@click.argument("name", required=False)
@worker_option
@click.option("--system", metavar="TEXT", help="What the model is told before the conversation.")
@sampling_options()
@click.option("-o", "--output", metavar="VAR", help="The variable that gets the panel.")
@with_session
def PANEL(  # noqa: N802 - as CHATS and COMPARE
    session: Session,
    /,
    name: str | None,
    worker: str | None,
    system: str | None,
    output: str | None,
    **values: Any,
) -> None:
    """Show a chat panel, which answers while other cells run.

    With NAME it begins with the conversation of that name in `%%chat`, where there is one.
    Sampling parameters are where its controls begin.
    """
    from llmkernel.notebook.panel.panel import ChatPanel

    wanted = given({**values, "output": output})
    chosen = worker or session.worker
    panel = ChatPanel(chosen, system=system, conversation=name, **sampling_values(wanted))
    panel.show()
    if output:
        session.variable(output, panel)


PANEL.params = [option for option in PANEL.params if option.name not in _NOT_HERE]
