"""What lies in the package: small, complete, and nothing that could run code."""

import json

from safetensors.numpy import load_file

FILES = {
    "README.md",
    "chat_template.jinja",
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
}
MEGABYTE = 10**6


def test_the_folder_holds_the_model_and_nothing_else(folder):
    assert {path.name for path in folder.iterdir() if path.name != "__pycache__"} == FILES


def test_the_weights_stay_below_eight_megabytes(folder):
    assert (folder / "model.safetensors").stat().st_size <= 8 * MEGABYTE


def test_the_model_has_three_to_six_million_parameters(folder):
    weights = load_file(folder / "model.safetensors")
    assert 3 * MEGABYTE <= sum(weight.size for weight in weights.values()) <= 6 * MEGABYTE


def test_the_configuration_is_a_llama_that_knows_its_end(folder):
    config = json.loads((folder / "config.json").read_text())
    generation = json.loads((folder / "generation_config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert config["max_position_embeddings"] == 1024
    assert generation["eos_token_id"] == config["eos_token_id"]


def test_the_card_says_where_the_model_comes_from(folder):
    card = (folder / "README.md").read_text()
    for word in ("tools/train_demo_model.py", "tools/evaluate_demo_model.py", "H200", "Apache-2.0"):
        assert word in card
