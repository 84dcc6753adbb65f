"""Random checkpoints: whole, the same each time, and never over something else."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from benchmarks import random_model
from benchmarks.command import Refused
from benchmarks.shapes import SHAPES

TINY = SHAPES["tiny"]


def test_a_checkpoint_is_the_same_each_time(tmp_path):
    for name in ("one", "two"):
        random_model.build(tmp_path / name, TINY)
    for path in (tmp_path / "one").glob("*.safetensors"):
        ours, theirs = load_file(path), load_file(tmp_path / "two" / path.name)
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)
        assert all(tensor.dtype == torch.bfloat16 for tensor in ours.values())


def test_a_folder_that_holds_it_is_reused(tiny_folder):
    before = {path: path.stat().st_mtime_ns for path in tiny_folder.iterdir()}
    parameters = random_model.build(tiny_folder, TINY)
    assert before == {path: path.stat().st_mtime_ns for path in tiny_folder.iterdir()}
    assert parameters == 2 * (2 * 256 * 256 + 2 * 128 * 256 + 3 * 512 * 256 + 2 * 256) + 256 + (
        2 * 8192 * 256
    )


def test_a_folder_that_holds_something_else_is_left_alone(tiny_folder):
    with pytest.raises(Refused, match="something else"):
        random_model.build(tiny_folder, TINY.with_layers(1))


@pytest.mark.parametrize("record", ["", "{", "[]", "{}", '{"record": 1}'])
def test_a_folder_whose_record_cannot_be_read_holds_something_else(tmp_path, record):
    (tmp_path / "built.json").write_text(record)
    with pytest.raises(Refused, match="Choose another folder"):
        random_model.build(tmp_path, TINY)
    assert (tmp_path / "built.json").read_text() == record


@pytest.mark.parametrize("name", SHAPES)
def test_every_shape_is_one_that_a_worker_takes(name):
    from llmkernel.worker.models.families import check_supported

    config = SHAPES[name].config()
    check_supported(config)
    sizes = random_model._sizes(config)
    assert any("lm_head" in size for size in sizes) != config.tie_word_embeddings
