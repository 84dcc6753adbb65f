"""What a GPU is, as its driver's program says."""

from __future__ import annotations

import pytest

from benchmarks import gpu, results


@pytest.fixture
def driver_says(tmp_path, monkeypatch):
    """Puts a program in the place of the driver's."""

    def put(script: str) -> None:
        program = tmp_path / "nvidia-smi"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    return put


def test_each_gpu_has_a_name_a_driver_and_memory(driver_says):
    driver_says("echo 'NVIDIA H200, 580.65.06, 143771'; echo 'NVIDIA L4, 580.65.06, 23034'")
    assert gpu.described() == [
        {"name": "NVIDIA H200", "driver": "580.65.06", "memory_bytes": 143771 * 2**20},
        {"name": "NVIDIA L4", "driver": "580.65.06", "memory_bytes": 23034 * 2**20},
    ]
    assert results.device_name(results.machine()) == "h200"


@pytest.mark.parametrize(
    ("name", "short"),
    [
        ("NVIDIA H100 80GB HBM3", "h100"),
        ("NVIDIA GeForce RTX 4090", "4090"),
        ("NVIDIA L4", "l4"),
        ("NVIDIA TITAN V", "v"),
    ],
)
def test_a_gpu_has_a_short_name(name, short):
    assert results.device_name({"gpus": [{"name": name}]}) == short


def test_a_driver_that_does_not_answer_is_no_gpu(driver_says):
    driver_says("echo 'No devices were found'; exit 6")
    assert gpu.described() == []
    assert results.device_name(results.machine()) == "cpu"


def test_figures_of_a_gpu_are_kept_under_its_name(driver_says, tmp_path):
    driver_says("echo 'NVIDIA H200, 580.65.06, 143771'")
    path = results.save("decode", {"shape": "tiny"}, "tiny", tmp_path / "kept")
    assert path.name.startswith("decode-tiny-h200-20")
    assert [record["shape"] for record in results.newest(tmp_path / "kept")] == ["tiny"]
