"""The table of supported families, and what is read from a model's configuration."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from llmkernel.errors import BrokenCheckpoint, UnsupportedModel

_STATIC_ROPE = frozenset({"default", "linear", "llama3", "proportional", "yarn"})
_LENGTH_ROPE = frozenset({"dynamic", "longrope"})
"""Frequencies that depend on how long a text is; `rope.py` fixes them for a worker."""
_LAYER_TYPES = frozenset({"full_attention", "sliding_attention"})

_LEAST = {"max_position_embeddings": 2, "num_hidden_layers": 1, "vocab_size": 1}
"""The least that a model can have; of positions two, a token of prompt and one of answer."""

_ONE_KEY_HEAD_EACH = frozenset({"gpt2", "gpt_neox"})
"""Families whose query heads never share keys, whatever a configuration says besides."""


def _nothing(_: Any) -> str | None:
    return None


@dataclass(frozen=True, slots=True)
class Family:
    """One row of the table.

    `refusal` looks at a configuration and says what in it is not supported, or None.
    """

    name: str
    model_type: str
    architecture: str
    refusal: Callable[[Any], str | None] = _nothing
    waits: bool = False
    """Whether its code asks the device for values, so that no graph can hold it."""


def _falcon_refusal(config: Any) -> str | None:
    return "ALiBi position biases (alibi=true)" if config.alibi else None


def _gemma3_refusal(config: Any) -> str | None:
    if getattr(config, "use_bidirectional_attention", False):
        return "bidirectional attention, which makes an embedding model of it"
    return None


def _gpt2_refusal(config: Any) -> str | None:
    return "cross-attention" if config.add_cross_attention else None


FAMILIES: dict[str, Family] = {
    family.model_type: family
    for family in (
        Family("Llama", "llama", "LlamaForCausalLM"),
        Family("Mistral", "mistral", "MistralForCausalLM"),
        Family("Mixtral", "mixtral", "MixtralForCausalLM", waits=True),
        Family("Qwen2", "qwen2", "Qwen2ForCausalLM"),
        Family("Qwen3", "qwen3", "Qwen3ForCausalLM"),
        Family("Gemma 2", "gemma2", "Gemma2ForCausalLM"),
        Family("Gemma 3 (text)", "gemma3_text", "Gemma3ForCausalLM", _gemma3_refusal),
        Family("Phi-3", "phi3", "Phi3ForCausalLM"),
        Family("Falcon", "falcon", "FalconForCausalLM", _falcon_refusal),
        Family("GPT-NeoX", "gpt_neox", "GPTNeoXForCausalLM"),
        Family("GPT-2", "gpt2", "GPT2LMHeadModel", _gpt2_refusal),
        Family("OLMo 2", "olmo2", "Olmo2ForCausalLM"),
        Family("StarCoder2", "starcoder2", "Starcoder2ForCausalLM"),
        Family("GPT-OSS", "gpt_oss", "GptOssForCausalLM", waits=True),
    )
}


class KVShape(NamedTuple):
    """Keys (and values) that one token leaves behind: layers x heads x head_dim numbers."""

    layers: int
    heads: int
    head_dim: int


def supported_names() -> str:
    """The supported families in one line, for messages."""
    return ", ".join(f"{family.name} ({family.architecture})" for family in FAMILIES.values())


def check_supported(config: Any) -> Family:
    """Return the family that a transformers configuration belongs to.

    Raises UnsupportedModel naming the architecture or the setting, and what is supported.
    """
    architectures = list(getattr(config, "architectures", None) or [])
    family = FAMILIES.get(config.model_type)
    if family is None or (architectures and family.architecture not in architectures):
        named = architectures[0] if architectures else config.model_type
        raise UnsupportedModel(
            f"The architecture {named} is not supported.{_cure(config)}"
            f" Supported are {supported_names()}.",
            architecture=named,
        )
    for problem in _refusals(family, config):
        raise UnsupportedModel(
            f"This {family.name} model uses {problem}, which is not supported."
            f" Supported are {supported_names()}.",
            architecture=family.architecture,
        )
    return family


def check_values(config: Any) -> None:
    """Look at the numbers that everything else is computed from.

    Raises BrokenCheckpoint naming the value in config.json that no model can have.
    """
    for name, value, least in _numbers(config):
        if not isinstance(value, int) or value < least:
            raise BrokenCheckpoint(
                f"config.json has {name}={value!r}, and the least a model can have is {least}. "
                "Download the model again."
            )


def _numbers(config: Any) -> Iterator[tuple[str, Any, int]]:
    """Name as in config.json, value and least value."""
    for name, least in _LEAST.items():
        yield config.attribute_map.get(name, name), getattr(config, name, None), least
    for part in rope_parameters(config).values():
        if part.get("rope_type") == "longrope":
            name = "original_max_position_embeddings"
            yield name, part.get(name), _LEAST["max_position_embeddings"]
    # any configuration keeps what it is given; only some families declare a window and read it
    window = config.sliding_window if hasattr(type(config), "sliding_window") else None
    kinds = getattr(config, "layer_types", None)
    if window is not None and (kinds is None or "sliding_attention" in kinds):
        yield "sliding_window", window, 1


def _cure(config: Any) -> str:
    if config.model_type in ("gemma3", "gemma3n"):
        return (
            " It is multimodal; of Gemma 3, checkpoints that hold the text model alone"
            " (Gemma3ForCausalLM) can be loaded."
        )
    return ""


def _refusals(family: Family, config: Any) -> Iterator[str]:
    if problem := family.refusal(config):
        yield problem
    for kind in sorted(set(rope_types(config).values()) - _STATIC_ROPE - _LENGTH_ROPE):
        yield f"the rotary embedding {kind!r}"
    for kind in sorted(set(getattr(config, "layer_types", None) or ()) - _LAYER_TYPES):
        yield f"layers of the type {kind!r}"


def rope_parameters(config: Any) -> dict[str, dict[str, Any]]:
    """Rotary parameters by layer type; "" where all layers share them, nothing without rotary."""
    parameters = getattr(config, "rope_parameters", None) or {}
    nested = {kind: part for kind, part in parameters.items() if isinstance(part, dict)}
    return nested or ({"": parameters} if parameters else {})


def rope_types(config: Any) -> dict[str, str]:
    """The kind of rotary embedding by layer type; "" where all layers share one."""
    return {
        layer_type: part.get("rope_type", "default")
        for layer_type, part in rope_parameters(config).items()
    }


def natural_context(config: Any) -> int:
    """Tokens of prompt and answer that the model was made for.

    With longrope that is the length up to which its short factors hold: a longer
    context has to be asked for, since it changes the frequencies for every request.
    """
    lengths = [
        part["original_max_position_embeddings"]
        for part in rope_parameters(config).values()
        if part.get("rope_type") == "longrope"
    ]
    return int(min(lengths, default=config.max_position_embeddings))


def kv_shape(config: Any) -> KVShape:
    """Layers, key heads and head size of a supported configuration."""
    queries = config.num_attention_heads
    heads = queries
    if config.model_type == "falcon":
        if config.new_decoder_architecture:
            heads = config.num_kv_heads or queries
        elif config.multi_query:
            heads = 1
    elif config.model_type not in _ONE_KEY_HEAD_EACH:
        heads = getattr(config, "num_key_value_heads", None) or queries
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // queries
    return KVShape(config.num_hidden_layers, int(heads), int(head_dim))


def block_bytes(config: Any, tokens: int, itemsize: int) -> int:
    """Bytes of a block of `tokens` over all layers, keys and values of numbers of `itemsize` bytes."""
    layers, heads, head_dim = kv_shape(config)
    return 2 * layers * heads * head_dim * tokens * itemsize
