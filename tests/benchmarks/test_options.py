"""What the commands are given is refused before anything is measured."""

from __future__ import annotations

import argparse

import pytest

from benchmarks import results, serving


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "", "many"])
def test_counts_are_from_one_on(text):
    assert serving.positive("12") == 12
    with pytest.raises(argparse.ArgumentTypeError, match="from 1 on"):
        serving.positive(text)


def test_figures_need_a_folder_that_can_be_written_to(tmp_path):
    made = results.folder(str(tmp_path / "new" / "folder"))
    assert made.is_dir()
    assert list(made.iterdir()) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(argparse.ArgumentTypeError, match="figures cannot be written to"):
        results.folder(str(tmp_path / "file" / "below"))
