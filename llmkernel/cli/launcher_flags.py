"""Text Generation Inference's launcher in the words of `llmkernel serve`.

Whoever brings a command line along is told what each of its options is called here;
docs/migrating_from_tgi.md goes through them in order.
"""

from __future__ import annotations

import click

from llmkernel.cli.failure import Command

_HUB = "the hub's own library reads HF_HOME, HF_HUB_OFFLINE and HF_TOKEN"
_FIRST = "start the worker with it before: llmkernel start ID {flag}, then llmkernel serve"
_ONE_DEVICE = "a model runs on one device; several workers with one model share its requests"
_NO_PROXY = "there is no tunnel; put a proxy in front"
_STEPS = "prompts and answers share each step, so there is nothing to set"
_NOT_YET = "it is not supported"
_PATIENCE = "say --drain-seconds"
_MACHINE = "llmkernel doctor shows it"

COUNTERPARTS = {
    "--model-id": "the model is an argument: llmkernel serve ID",
    "--revision": _FIRST.format(flag="--revision R"),
    "--trust-remote-code": _FIRST.format(flag="--trust-remote-code"),
    "--tokenizer-config-path": "give a local folder that has the configuration you want",
    "--huggingface-hub-cache": _HUB,
    "--weights-cache-override": _HUB,
    "--quantize": (
        "say --quantization nf4, fp4, int8 or none; GPTQ and AWQ checkpoints of 4 bits need none"
    ),
    "--kv-cache-dtype": _NOT_YET,
    "--rope-scaling": "the model's configuration says it",
    "--rope-factor": "the model's configuration says it",
    "--lora-adapters": _NOT_YET,
    "--speculate": _NOT_YET,
    "--max-input-length": "say --max-input-tokens",
    "--max-image-fetch-size": "nothing is ever fetched",
    "--validation-workers": "the worker tokenises in its own threads",
    "--max-batch-prefill-tokens": _FIRST.format(flag="--max-batch-tokens N"),
    "--max-batch-total-tokens": "say --kv-cache SIZE, the memory for keys and values",
    "--cuda-memory-fraction": "say --kv-cache SIZE, the memory for keys and values",
    "--max-batch-size": "say --max-concurrent N",
    "--waiting-served-ratio": _STEPS,
    "--max-waiting-tokens": _STEPS,
    "--cuda-graphs": "they are the default; LLMKERNEL_CUDA_GRAPHS=0 is without them",
    "--disable-custom-kernels": "set LLMKERNEL_KERNELS=0",
    "--sharded": _ONE_DEVICE,
    "--num-shard": _ONE_DEVICE,
    "--master-addr": _ONE_DEVICE,
    "--master-port": _ONE_DEVICE,
    "--shard-uds-path": _ONE_DEVICE,
    "--disable-grammar-support": "grammars are refused by name",
    "--enable-prefill-logprobs": "they are always there for whoever asks",
    "--watermark-gamma": _NOT_YET,
    "--watermark-delta": _NOT_YET,
    "--hostname": "say --host",
    "--prometheus-port": "/metrics is on the same port, with the token",
    "--api-key": "there is always a token: LLMKERNEL_GATEWAY_TOKEN, or the file that is named",
    "--cors-allow-origin": "say --allow-origin",
    "--json-output": "say --json-log",
    "--graceful-termination-timeout": _PATIENCE,
    "-g": _PATIENCE,
    "--usage-stats": "nothing is ever sent to anybody",
    "--env": _MACHINE,
    "-e": _MACHINE,
    "--ngrok": _NO_PROXY,
    "--ngrok-authtoken": _NO_PROXY,
    "--ngrok-edge": _NO_PROXY,
}
"""What each option that has another name here, or none, is called, or why there is none."""


class Serve(Command):
    """A command that knows the launcher's options."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As click does it. Raises UsageError with the name here for one of the launcher's."""
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            counterpart = COUNTERPARTS.get(error.option_name)
            if counterpart is None:
                raise
            said = f"{error.option_name} is an option of Text Generation Inference. Here"
            raise click.UsageError(f"{said}: {counterpart}.", ctx) from None
