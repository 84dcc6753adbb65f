"""`llmkernel serve`: the gateway in the foreground."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import click

from llmkernel.cli import console
from llmkernel.cli.launcher_flags import Serve
from llmkernel.errors import InvalidRequest, missing
from llmkernel.options.numbers import FiniteRange

if TYPE_CHECKING:
    from llmkernel.gateway.server import Server
    from llmkernel.gateway.settings import Settings

_LOAD_OPTIONS = ("quantization", "dtype", "device", "context_length", "kv_cache", "max_concurrent")


@click.command("serve", cls=Serve)
@click.argument("models", nargs=-1, metavar="[MODEL]...")
@click.option(
    "-p",
    "--port",
    default=8080,
    show_default=True,
    type=click.IntRange(0, 65535),
    help="Port; 0 takes any free one.",
)
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="Address to listen on. Another than a loopback one lets other machines in.",
)
@click.option(
    "-m",
    "--worker",
    "workers",
    multiple=True,
    metavar="NAME",
    help="Serve this worker and no others; may be given again.",
)
@click.option(
    "--allow-model",
    "allow_models",
    multiple=True,
    metavar="MODEL",
    help="A model that requests may have loaded by naming it; may be given again.",
)
@click.option(
    "--unload-after",
    type=FiniteRange(min=0, min_open=True),
    metavar="SECONDS",
    help="Stop workers that the gateway started after so long without work.",
)
@click.option(
    "--allow-host",
    "allow_hosts",
    multiple=True,
    metavar="NAME",
    help="A Host name beside the loopback ones; may be given again.",
)
@click.option(
    "--allow-origin",
    "allow_origins",
    multiple=True,
    metavar="ORIGIN",
    help="A site whose pages may call the gateway; may be given again.",
)
@click.option(
    "--tgi-compat",
    type=click.Choice(["strict", "plain"]),
    default="strict",
    show_default=True,
    help="How far to keep the habits of Text Generation Inference.",
)
@click.option(
    "--max-concurrent-requests",
    type=int,
    metavar="N",
    help="Requests in flight; one more is refused at once. Default: 128.",
)
@click.option("--max-best-of", type=int, metavar="N", help="Largest best_of. Default: 2.")
@click.option(
    "--max-stop-sequences", type=int, metavar="N", help="Stop texts of a request. Default: 4."
)
@click.option("--max-top-n-tokens", type=int, metavar="N", help="Largest top_n_tokens. Default: 5.")
@click.option(
    "--max-client-batch-size", type=int, metavar="N", help="Prompts of one request. Default: 4."
)
@click.option(
    "--max-input-tokens",
    type=int,
    metavar="N",
    help="Tokens of a prompt; what the model takes where it is left out.",
)
@click.option(
    "--max-total-tokens",
    type=int,
    metavar="N",
    help="Tokens of prompt and answer; the context length where it is left out.",
)
@click.option(
    "--payload-limit", type=int, metavar="BYTES", help="Bytes of a request. Default: 2000000."
)
@click.option(
    "--max-connections",
    default=1024,
    show_default=True,
    type=click.IntRange(min=1),
    help="Connections at once; more are closed.",
)
@click.option(
    "--otlp-endpoint",
    metavar="URL",
    help="OpenTelemetry collector that gets the traces (OTLP over HTTP); needs the extra otel.",
)
@click.option(
    "--otlp-service-name",
    default="llmkernel.gateway",
    show_default=True,
    help="Name of the service in the traces.",
)
@click.option(
    "--drain-seconds",
    default=30.0,
    show_default=True,
    type=FiniteRange(min=0),
    metavar="SECONDS",
    help="How long a stop waits for requests in flight.",
)
@click.option(
    "--quantization", help="For workers that the gateway starts; as for `llmkernel start`."
)
@click.option("--dtype", help="The same.")
@click.option("--device", help="The same.")
@click.option("--context-length", type=int, metavar="N", help="The same.")
@click.option("--kv-cache", metavar="SIZE", help="The same.")
@click.option("--max-concurrent", type=int, metavar="N", help="The same.")
@click.option("--json-log", is_flag=True, help="Write the log as lines of JSON.")
def serve_command(models: tuple[str, ...], json_log: bool, **values: Any) -> None:
    """Serve the running workers over HTTP, in the dialects of other servers.

    MODEL is started where it does not run; without any, and where no worker runs, it is
    the embedded one. Each request needs the token of the file that is named at the start,
    or of LLMKERNEL_GATEWAY_TOKEN. SIGTERM and Ctrl-C let requests in flight end, a second
    one does not. The workers stay.
    """
    settings = _settings(values)
    _check_models(models)
    try:
        from llmkernel.gateway.logs import quiet_tornado, write_to
        from llmkernel.gateway.server import Server
    except ImportError as error:
        raise missing(error.name or "tornado", "gateway") from None
    write_to(as_json=json_log)
    quiet_tornado()
    asyncio.run(_serve(Server, settings, models))


def _settings(values: dict[str, Any]) -> Settings:
    from llmkernel.gateway.settings import Limits, Settings

    def given(names: tuple[str, ...]) -> dict[str, Any]:
        return {name: values.pop(name) for name in names if values.get(name) is not None}

    limits = Limits(**given(Limits.__struct_fields__))
    load = given(_LOAD_OPTIONS)
    rest = {
        name: value
        for name, value in values.items()
        if value is not None and name in Settings.__struct_fields__
    }
    if rest["workers"] and rest.get("unload_after") and not rest["allow_models"]:
        raise InvalidRequest("--unload-after is for models that the gateway starts: name some.")
    return Settings(**rest, limits=limits, load_settings=load)


def _check_models(models: tuple[str, ...]) -> None:
    """Raise InvalidRequest for a worker's name where a model is meant to be."""
    from llmkernel.connection import list_workers

    for worker in list_workers() if models else ():
        if worker.name in models and worker.model != worker.name:
            raise InvalidRequest(
                f"{worker.name!r} is the name of a worker that runs, and MODEL is a model. "
                f"Serve the worker with: llmkernel serve --worker {worker.name}"
            )


async def _serve(make: type[Server], settings: Settings, models: tuple[str, ...]) -> None:
    server = make(settings)
    await server.start(models)
    console.line(f"Serving {', '.join(server.gateway.models.names())} at {server.url}")
    console.line(f"Token: {_where_token()}")
    await server.run()


def _where_token() -> str:
    from llmkernel import environment
    from llmkernel.gateway.credentials import token_path

    if environment.gateway_token() is not None:
        return "the value of LLMKERNEL_GATEWAY_TOKEN"
    return f"in {token_path()}"
