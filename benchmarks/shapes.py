"""The sizes of the models that are measured: what stands in their config.json, without weights."""

from __future__ import annotations

from typing import Any, NamedTuple


class Shape(NamedTuple):
    """A model by its configuration; `values` are transformers' own names."""

    name: str
    model_type: str
    architecture: str
    values: dict[str, Any]

    @property
    def vocabulary(self) -> int:
        """Token ids that there are."""
        return int(self.values["vocab_size"])

    def with_layers(self, layers: int | None) -> Shape:
        """The same with so many layers, for a quick look; None is all of them."""
        if layers is None:
            return self
        name = f"{self.name}-{layers}-layers"
        return self._replace(name=name, values={**self.values, "num_hidden_layers": layers})

    def config(self, dtype: str = "bfloat16") -> Any:
        """The transformers configuration, for weights stored in `dtype`."""
        from transformers import AutoConfig

        return AutoConfig.for_model(
            self.model_type,
            **self.values,
            architectures=[self.architecture],
            dtype=dtype,
            bos_token_id=0,
            eos_token_id=1,
        )


def _llama(name: str, **values: Any) -> Shape:
    return Shape(name, "llama", "LlamaForCausalLM", {"tie_word_embeddings": False, **values})


SHAPES = {
    shape.name: shape
    for shape in (
        _llama(
            "llama-3.1-8b",
            vocab_size=128256,
            hidden_size=4096,
            intermediate_size=14336,
            num_hidden_layers=32,
            num_attention_heads=32,
            num_key_value_heads=8,
            head_dim=128,
            rms_norm_eps=1e-5,
            max_position_embeddings=131072,
            rope_parameters={
                "rope_type": "llama3",
                "rope_theta": 500000.0,
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 8192,
            },
        ),
        Shape(
            "qwen3-4b",
            "qwen3",
            "Qwen3ForCausalLM",
            {
                "vocab_size": 151936,
                "hidden_size": 2560,
                "intermediate_size": 9728,
                "num_hidden_layers": 36,
                "num_attention_heads": 32,
                "num_key_value_heads": 8,
                "head_dim": 128,
                "rms_norm_eps": 1e-6,
                "max_position_embeddings": 40960,
                "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
                "tie_word_embeddings": True,
            },
        ),
        Shape(
            "falcon-7b",
            "falcon",
            "FalconForCausalLM",
            {
                "vocab_size": 65024,
                "hidden_size": 4544,
                "num_hidden_layers": 32,
                "num_attention_heads": 71,
                "multi_query": True,
                "parallel_attn": True,
                "new_decoder_architecture": False,
                "bias": False,
                "alibi": False,
                # eight times what it was trained for, so that it takes the same prompts
                "max_position_embeddings": 16384,
                "tie_word_embeddings": True,
            },
        ),
        _llama(
            "llama-100m",
            vocab_size=8192,
            hidden_size=768,
            intermediate_size=2048,
            num_hidden_layers=12,
            num_attention_heads=12,
            num_key_value_heads=12,
            max_position_embeddings=16384,
        ),
        _llama(
            "tiny",
            vocab_size=8192,
            hidden_size=256,
            intermediate_size=512,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=64,
            max_position_embeddings=16384,
        ),
    )
}
"""By name."""
