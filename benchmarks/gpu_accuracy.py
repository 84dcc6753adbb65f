"""How exact 4-bit models are on a GPU: logits against float32, answers against transformers.

    python -m benchmarks.gpu_accuracy [--family NAME]... [--layers N] [--skip-large] [--save]

Of each variant of `tiny_models`, and of the 8B shape with few layers, transformers makes one
NF4 checkpoint, which both sides then load: the engine on whatever kernels the settings give it
(merged weights, fused layers, graphs), and transformers with bitsandbytes.

- Relative error: of the logits that the engine sampled from, prompts computed in chunks beside
  running rows, against float32 arithmetic on the dequantised weights and the same tokens.
  Beside it that of transformers with bitsandbytes.
- Agreement: greedy answers to the same prompts, by both. "Equal" are answers without a
  difference; "until they part" is the share of tokens before the first one; "choices" is how
  often transformers would choose the engine's token after the engine's own text.

Rounding decides between tokens of nearly equal logits, so neither rate has to be 1 in 16 bits.
"""

from __future__ import annotations

import gc
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from benchmarks import apart, command, random_model, results, tables, tiny_models
from benchmarks.prompts import Prompts
from benchmarks.shapes import SHAPES
from llmkernel.config import WorkerConfig
from llmkernel.params import SamplingParams
from llmkernel.worker import loader, quantization
from llmkernel.worker.engine import Engine
from llmkernel.worker.runner import ModelRunner
from llmkernel.worker.sequence import EngineEvent, Request, TokenEvent
from llmkernel.worker.step import StepBatch

LENGTHS = (5, 17, 40, 75)
NEW_TOKENS = 64
LARGE = "llama-3.1-8b"
LARGE_LAYERS = 4
MOST_ERROR = 2e-2
"""Of the logits in 16 bits, or twice what bitsandbytes makes: rounding adds up over layers, but a
wrong kernel is off by much more."""
_BLOCK = 16
_BATCH_TOKENS = 32
"""Less than a prompt, so that there are chunks beside running rows."""


class Case(NamedTuple):
    """A model to try: `build` saves its checkpoint into a folder."""

    name: str
    vocabulary: int
    context_length: int
    build: Callable[[Path], Any]


class Answers(NamedTuple):
    """Greedy answers [prompts][tokens] and the logits [tokens, vocabulary] of each."""

    tokens: list[list[int]]
    logits: list[Tensor]
    kernels: str


class Accuracy(NamedTuple):
    """What came of a case. Errors are relative, the others shares of all prompts or tokens."""

    name: str
    error: float
    bitsandbytes_error: float
    equal: float
    until_parting: float
    choices: float
    kernels: str


def cases(families: Sequence[str], layers: int | None) -> Iterator[Case]:
    """The tiny variants, and the large shape with so many layers; None leaves it out."""
    for name in families:
        build = partial(tiny_models.save, name)
        yield Case(name, tiny_models.VOCABULARY, tiny_models.context_of(name), build)
    if layers is not None:
        shape = SHAPES[LARGE].with_layers(layers)

        def build_large(folder: Path) -> None:
            apart.call(random_model.build, folder, shape)

        yield Case(shape.name, shape.vocabulary, 1024, build_large)


def measure(
    case: Case, device: torch.device, dtype: torch.dtype, new_tokens: int = NEW_TOKENS
) -> Accuracy:
    """Try one case in `dtype` with answers of `new_tokens`. Needs bitsandbytes and accelerate."""
    prompts = Prompts(case.vocabulary)
    asked = [prompts.take(length) for length in LENGTHS]
    with tempfile.TemporaryDirectory(prefix="lk-accuracy-") as temporary:
        folder = Path(temporary) / "nf4"
        _save_quantised(case, Path(temporary) / "plain", folder, device, dtype)
        mine = answers(_loaded(case, folder, device, dtype), asked, new_tokens)
        with _theirs(folder, device, dtype) as model:
            greedy = [tiny_models.generate(model, prompt, new_tokens)[0] for prompt in asked]
            rounded = [logits_of(model, *pair) for pair in zip(asked, mine.tokens, strict=True)]
            dequantise(model)
            exact = [logits_of(model, *pair) for pair in zip(asked, mine.tokens, strict=True)]
    return Accuracy(
        name=case.name,
        error=relative_error(mine.logits, exact),
        bitsandbytes_error=relative_error(rounded, exact),
        equal=share([a == b for a, b in zip(mine.tokens, greedy, strict=True)]),
        until_parting=share([same for pair in zip(mine.tokens, greedy, strict=True) for same in together(*pair)]),
        choices=share([
            token == choice
            for tokens, logits in zip(mine.tokens, rounded, strict=True)
            for token, choice in zip(tokens, logits.argmax(-1).tolist(), strict=True)
        ]),
        kernels=mine.kernels,
    )  # fmt: skip


class _Watched(ModelRunner):
    """A runner that keeps the logits of each sampled position, by request and position."""

    def __init__(self, loaded: Any, **sizes: Any) -> None:
        super().__init__(loaded, **sizes)
        self.logits: dict[tuple[int, int], Tensor] = {}

    def _compute(self, batch: StepBatch) -> Any:
        computed = super()._compute(batch)
        sampled = [row for row in batch.rows if row.samples]
        if computed.logits is not None:
            for row, line in zip(sampled, computed.logits.float(), strict=True):
                self.logits[row.sequence.request.key, row.start + row.count] = line.clone()
        return computed


def _loaded(
    case: Case, folder: Path, device: torch.device, dtype: torch.dtype
) -> loader.LoadedModel:
    config = WorkerConfig.build(
        model=str(folder),
        device=device.type,
        dtype=str(dtype).removeprefix("torch."),
        context_length=case.context_length,
    )
    loaded = loader.load(config, lambda _progress: None)
    loaded.tokenizer.close()
    return loaded


def answers(loaded: loader.LoadedModel, prompts: list[list[int]], new_tokens: int) -> Answers:
    """What the engine answers, one step behind, as a worker on a GPU is."""
    sizes: dict[str, Any] = {
        "num_blocks": 64 * len(prompts),
        "block_size": _BLOCK,
        "max_concurrent": len(prompts),
    }
    sizes["max_batch_tokens"] = _BATCH_TOKENS
    runner = _Watched(loaded, copies=2, **sizes)
    tokens: list[list[int]] = [[] for _ in prompts]

    def take(events: list[EngineEvent]) -> None:
        for event in events:
            if isinstance(event, TokenEvent):
                tokens[event.request.key].append(event.sampled.token_id)
            elif event.error is not None:
                raise event.error

    engine = Engine(
        runner,
        context_length=loaded.context_length,
        prefix_cache=False,
        depth=1,
        on_events=take,
        on_death=print,
        **sizes,
    )
    greedy = SamplingParams.build(temperature=0.0, ignore_eos=True)
    for key, prompt in enumerate(prompts):
        engine.submit(Request(key, "accuracy", tuple(prompt), greedy, new_tokens))
        engine.step()
    while engine.step():
        pass
    logits = [
        torch.stack([runner.logits[key, len(prompt) + place] for place in range(new_tokens)])
        for key, prompt in enumerate(prompts)
    ]
    return Answers(tokens, logits, runner.kernels)


@torch.inference_mode()
def logits_of(model: Any, prompt: list[int], answer: list[int]) -> Tensor:
    """Logits float32 [len(answer), vocabulary] that a transformers model has before each token."""
    ids = torch.tensor([prompt + answer[:-1]], device=model.device)
    logits: Tensor = model(input_ids=ids, use_cache=False).logits[0, len(prompt) - 1 :]
    return logits.float()


def relative_error(found: Sequence[Tensor], exact: Sequence[Tensor]) -> float:
    """Norm of the difference over the norm of `exact`, over everything; NaN stays NaN."""
    one, other = torch.cat(list(found)), torch.cat(list(exact))
    return float((one - other).norm() / other.norm())


def together(mine: Sequence[int], theirs: Sequence[int]) -> list[bool]:
    """For each token of an answer whether nothing has differed up to it."""
    same = True
    result = []
    for a, b in zip(mine, theirs, strict=True):
        same = same and a == b
        result.append(same)
    return result


def share(found: Sequence[bool]) -> float:
    """How many of them are so, from 0 to 1."""
    return sum(found) / len(found)


@torch.no_grad()
def dequantise(model: Any) -> None:
    """Make plain float32 of a model with bitsandbytes' 4-bit layers, in place."""
    from bitsandbytes.functional import dequantize_4bit

    for parent in list(model.modules()):
        for name, layer in list(parent.named_children()):
            if type(layer).__name__ == "Linear4bit":
                weight = dequantize_4bit(layer.weight.data, layer.weight.quant_state).float()
                plain = nn.Linear(1, 1, bias=layer.bias is not None)
                plain.weight = nn.Parameter(weight, requires_grad=False)
                if layer.bias is not None:
                    plain.bias = layer.bias
                setattr(parent, name, plain)
    for tensor in [*model.parameters(), *model.buffers()]:
        if tensor.is_floating_point():
            tensor.data = tensor.data.float()
    model.config.dtype = torch.float32


def _save_quantised(
    case: Case, plain: Path, folder: Path, device: torch.device, dtype: torch.dtype
) -> None:
    """Build a case's checkpoint in `plain`, and what transformers quantises it to in `folder`."""
    from transformers import BitsAndBytesConfig

    case.build(plain)
    make: Any = BitsAndBytesConfig
    asked = make(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype)
    with _theirs(plain, device, dtype, asked) as model:
        model.save_pretrained(folder)
    for path in plain.glob("*token*"):
        (folder / path.name).write_bytes(path.read_bytes())


@contextmanager
def _theirs(
    folder: Path, device: torch.device, dtype: torch.dtype, quantise: Any = None
) -> Iterator[Any]:
    """The model as transformers loads it; `quantise` is for one that is not quantised yet."""
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    # to transformers a configuration that is None is one that says no
    asked = {} if quantise is None else {"quantization_config": quantise}
    with quantization.convertible(AutoConfig.from_pretrained(folder)):
        model: Any = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=dtype,
            device_map={"": device},
            attn_implementation="eager",  # the one that heeds a soft cap in every version
            **asked,
        )
    model.generation_config.eos_token_id = None
    try:
        yield model
    finally:
        del model
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()


def table(found: Sequence[Accuracy]) -> list[str]:
    """The lines of a Markdown table."""
    heads = (
        "model",
        "relative error",
        "bitsandbytes'",
        "equal answers",
        "until they part",
        "choices",
    )
    rows: list[Any] = [one[: len(heads)] for one in found]
    return tables.markdown(heads, rows)


def figures(found: Sequence[Accuracy], dtype: torch.dtype) -> dict[str, Any]:
    """What is kept."""
    return {
        "dtype": str(dtype).removeprefix("torch."),
        "new_tokens": NEW_TOKENS,
        "prompt_tokens": LENGTHS,
        "cases": [one._asdict() for one in found],
        "inexact": inexact(found),
    }


def inexact(found: Sequence[Accuracy]) -> list[str]:
    """Names of the cases whose error is too large, or no number."""
    return [
        one.name for one in found if not one.error < max(MOST_ERROR, 2 * one.bitsandbytes_error)
    ]


def main(given: list[str] | None = None) -> int:
    """Measure and print; 0 only if every error is small."""
    parser = command.parser(__doc__)
    parser.add_argument("--family", action="append", choices=list(tiny_models.VARIANTS))
    parser.add_argument(
        "--layers", type=command.positive,
        help=f"of the large shape (default: {LARGE_LAYERS} on a GPU, elsewhere the shape is skipped)",
    )  # fmt: skip
    parser.add_argument("--skip-large", action="store_true")
    options = parser.parse_args(given)
    on_gpu = torch.cuda.is_available()
    device = torch.device("cuda:0" if on_gpu else "cpu")
    dtype = torch.bfloat16 if on_gpu else torch.float32
    found = []
    layers = None if options.skip_large else options.layers or (LARGE_LAYERS if on_gpu else None)
    for case in cases(options.family or list(tiny_models.VARIANTS), layers):
        found.append(measure(case, device, dtype))
        print(f"{case.name}: {found[-1].error:.2e} on {found[-1].kernels}", flush=True)
    print(*table(found), sep="\n")
    if options.save:
        print(results.save("gpu_accuracy", figures(found, dtype), "", options.save))
    return 1 if inexact(found) else 0


if __name__ == "__main__":
    command.run(main)
