"""Train the embedded model: tokenizer, weights, and every file of `llmkernel/demo` but its card.

    python tools/train_demo_model.py --out llmkernel/demo            # a GPU: minutes
    python tools/train_demo_model.py --out /tmp/demo --steps 20 --batch 4 --workers 1

The data is generated while training (`tools/demo_data`) from the seed, so nothing is
downloaded and every row is new. Rows hold whole examples that do not see each other.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from demo_data import corpus
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM

VOCABULARY = 1536
CONTEXT = 1024
TOKENIZER_EXAMPLES = 40_000
# seeds far apart: one stream for the tokenizer, one per training step
TOKENIZER_SEED, STEP_SEED = 1_000_003, 2_000_003
IGNORED = -100

CHAT_TEMPLATE = """\
{{- bos_token }}
{%- for message in messages %}
    {%- if message['role'] not in ['system', 'user', 'assistant'] %}
        {{- raise_exception('The roles of this model are system, user and assistant.') }}
    {%- endif %}
    {{- '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|assistant|>' }}
{%- endif %}
"""


def train_tokenizer() -> Tokenizer:
    """A byte-level BPE in which every digit is a token of its own, so that sums can be learned."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[AddedToken(text, special=True) for text in corpus.SPECIALS],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    stream = islice(corpus.examples(TOKENIZER_SEED), TOKENIZER_EXAMPLES)
    texts = (text for example in stream for text, _ in corpus.segments(example))
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{corpus.BEGIN} $A",
        pair=f"{corpus.BEGIN} $A {corpus.BEGIN} $B:1",
        special_tokens=[(corpus.BEGIN, tokenizer.token_to_id(corpus.BEGIN))],
    )
    return tokenizer


def build_model(tokenizer: Tokenizer, seed: int) -> LlamaForCausalLM:
    """The untrained model: Llama, six layers, tied embeddings, grouped-query attention."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=6,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.token_to_id(corpus.BEGIN),
        eos_token_id=tokenizer.token_to_id(corpus.END),
        pad_token_id=tokenizer.token_to_id(corpus.PAD),
    )
    return LlamaForCausalLM._from_config(config, attn_implementation="sdpa")


def _rows_of_step(task: tuple[str, int, int, int]) -> corpus.Rows:
    # runs in a worker process: the tokenizer travels as its JSON
    serialized, seed, count, length = task
    return corpus.rows(Tokenizer.from_str(serialized), seed, count, length)


def batches(tokenizer: Tokenizer, steps: int, batch: int, workers: int) -> Iterator[corpus.Rows]:
    """The rows of each step in order, made ahead of time by `workers` processes."""
    serialized = tokenizer.to_str()
    tasks = ((serialized, STEP_SEED + step, batch, CONTEXT) for step in range(steps))
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        yield from pool.imap(_rows_of_step, tasks)


def loss_of(model: LlamaForCausalLM, rows: corpus.Rows, device: torch.device) -> Tensor:
    """Mean cross entropy over the predicted tokens of `rows`, whole examples not seeing each other."""
    ids = torch.from_numpy(rows.ids.astype("int64")).to(device, non_blocking=True)
    document = torch.from_numpy(rows.document.astype("int32")).to(device, non_blocking=True)
    target = torch.from_numpy(rows.target).to(device, non_blocking=True)
    place = torch.arange(ids.shape[1], device=device)
    same = document[:, :, None] == document[:, None, :]
    mask = (same & (place[:, None] >= place[None, :]))[:, None]
    starts = torch.where(document != torch.roll(document, 1, 1), place, 0)
    begin = torch.cummax(starts, 1).values
    with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
        output = model(ids, attention_mask=mask, position_ids=place - begin, use_cache=False)
    labels = torch.where(target, ids, IGNORED)[:, 1:].flatten()
    logits = output.logits[:, :-1].flatten(0, 1).float()
    return cross_entropy(logits, labels, ignore_index=IGNORED)


def optimizer_of(model: LlamaForCausalLM, rate: float, fused: bool) -> torch.optim.Optimizer:
    """AdamW that decays matrices only."""
    matrices = [weight for weight in model.parameters() if weight.ndim >= 2]
    vectors = [weight for weight in model.parameters() if weight.ndim < 2]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.95), fused=fused)


def rate_at(step: int, steps: int, peak: float) -> float:
    """Linear warm-up over the first 3 %, then linear decay to zero (Defazio et al. 2023)."""
    warm = max(1, steps * 3 // 100)
    return peak * min((step + 1) / warm, (steps - step) / (steps - warm + 1))


def train(model: LlamaForCausalLM, tokenizer: Tokenizer, arguments: argparse.Namespace) -> None:
    """Run the steps; prints loss and speed."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model.to(device).train()
    optimizer = optimizer_of(model, arguments.rate, fused=device.type == "cuda")
    started = time.monotonic()
    source = batches(tokenizer, arguments.steps, arguments.batch, arguments.workers)
    for step, rows in enumerate(source):
        for group in optimizer.param_groups:
            group["lr"] = rate_at(step, arguments.steps, arguments.rate)
        loss = loss_of(model, rows, device)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if step % 100 == 99 or step + 1 == arguments.steps:
            elapsed = time.monotonic() - started
            speed = (step + 1) * rows.ids.size / elapsed
            print(f"step {step + 1} loss {loss.item():.4f} {speed:,.0f} tokens/s {elapsed:.0f} s", flush=True)  # fmt: skip
    model.cpu().eval()


def save_tokenizer(tokenizer: Tokenizer, out: Path) -> None:
    """Write tokenizer.json, tokenizer_config.json and chat_template.jinja."""
    tokenizer.save(str(out / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": corpus.BEGIN,
        "eos_token": corpus.END,
        "pad_token": corpus.PAD,
        "additional_special_tokens": [corpus.SYSTEM, corpus.USER, corpus.ASSISTANT],
        "clean_up_tokenization_spaces": False,
        "model_max_length": CONTEXT,
    }
    (out / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")
    (out / "chat_template.jinja").write_text(CHAT_TEMPLATE)


def save_model(model: LlamaForCausalLM, out: Path) -> None:
    """Write config.json, generation_config.json and model.safetensors, in float16.

    float16 keeps three more bits of each weight than bfloat16, and no weight is
    near its limits.
    """
    largest = max(weight.abs().max().item() for weight in model.parameters())
    if not largest < 1000:
        raise SystemExit(f"The training diverged: a weight has size {largest}.")
    model.half().save_pretrained(out)
    (out / "model.safetensors").chmod(0o644)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder that takes the files")
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--batch", type=int, default=64, help=f"rows of {CONTEXT} tokens a step")
    parser.add_argument("--rate", type=float, default=3e-3, help="highest learning rate")
    parser.add_argument("--seed", type=int, default=17)
    parser.add_argument("--workers", type=int, default=14, help="processes that make data")
    return parser.parse_args()


def main() -> None:
    """Train and write everything."""
    arguments = parse()
    arguments.out.mkdir(parents=True, exist_ok=True)
    tokenizer = train_tokenizer()
    save_tokenizer(tokenizer, arguments.out)
    model = build_model(tokenizer, arguments.seed)
    count = sum(weight.numel() for weight in model.parameters())
    print(
        f"{count:,} parameters, {arguments.steps * arguments.batch * CONTEXT:,} tokens", flush=True
    )
    train(model, tokenizer, arguments)
    save_model(model, arguments.out)


if __name__ == "__main__":
    main()
