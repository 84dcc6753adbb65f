"""What this machine has, and which models fit on it.

Works without torch: libraries are looked up in the installed packages' metadata, and a GPU
through the driver's own `nvidia-smi`.
"""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import msgspec
import psutil

from llmkernel import paths
from llmkernel._version import __version__
from llmkernel.errors import LLMKernelError

LIBRARIES = (
    "torch",
    "transformers",
    "bitsandbytes",
    "accelerate",
    "tokenizers",
    "safetensors",
    "huggingface-hub",
    "pyzmq",
    "msgspec",
    "ipykernel",
    "ipywidgets",
    "jupyterlab",
)
MINIMUM = {"torch": "2.11", "transformers": "5.17", "bitsandbytes": "0.50"}
_WORKER_NEEDS = ("torch", "transformers", "bitsandbytes", "tokenizers", "safetensors")

KV_TOKENS = 8192
"""Tokens of keys and values that "fits" counts beside the weights."""
SPARE = 0.10
"""Share of the weights kept free for activations and the allocator."""
NF4_BYTES = 0.5 + 4 / 64
"""Bytes of one weight: 4 bits, and a float32 scale for each block of 64."""


class Shape(msgspec.Struct, frozen=True):
    """The sizes of a decoder that decide what it takes in memory."""

    label: str
    example: str
    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    tied: bool = False

    @property
    def linear_weights(self) -> int:
        """Weights of the matrices that are quantised."""
        attention = 2 * self.hidden * self.head_dim * (self.heads + self.kv_heads)
        return self.layers * (attention + 3 * self.hidden * self.intermediate)

    @property
    def embedding_weights(self) -> int:
        """Weights of the embedding and the output head, which stay at 16 bits."""
        return self.vocab * self.hidden * (1 if self.tied else 2)

    @property
    def parameters(self) -> int:
        """All weights but the norms."""
        return self.linear_weights + self.embedding_weights

    def needed_bytes(self) -> int:
        """Bytes of the device at 4 bits, with keys and values of KV_TOKENS tokens at 16 bits."""
        weights = self.linear_weights * NF4_BYTES + self.embedding_weights * 2
        kv = 2 * self.layers * self.kv_heads * self.head_dim * 2 * KV_TOKENS
        return int(weights * (1 + SPARE) + kv)


SHAPES = (
    Shape("0.5B", "Qwen2.5-0.5B", 24, 896, 4864, 14, 2, 64, 151_936, tied=True),
    Shape("1B", "Llama-3.2-1B", 16, 2048, 8192, 32, 8, 64, 128_256, tied=True),
    Shape("3B", "Llama-3.2-3B", 28, 3072, 8192, 24, 8, 128, 128_256, tied=True),
    Shape("4B", "Qwen3-4B", 36, 2560, 9728, 32, 8, 128, 151_936, tied=True),
    Shape("8B", "Llama-3.1-8B", 32, 4096, 14_336, 32, 8, 128, 128_256),
    Shape("14B", "Qwen3-14B", 40, 5120, 17_408, 40, 8, 128, 151_936),
    Shape("32B", "Qwen3-32B", 64, 5120, 25_600, 64, 8, 128, 151_936),
    Shape("70B", "Llama-3.1-70B", 80, 8192, 28_672, 64, 8, 128, 128_256),
)


class Gpu(msgspec.Struct, frozen=True):
    """One NVIDIA device, in bytes."""

    index: int
    name: str
    total_bytes: int
    free_bytes: int
    driver: str
    compute_capability: str


class Library(msgspec.Struct, frozen=True):
    """An installed package; `version` is None where it is absent."""

    name: str
    version: str | None
    problem: str = ""


class Fit(msgspec.Struct, frozen=True):
    """Whether a model of a size fits at 4 bits, and where: "gpu N", "cpu" or ""."""

    label: str
    example: str
    needed_bytes: int
    on: str


class Report(msgspec.Struct, frozen=True):
    """Everything that `llmkernel doctor` says."""

    llmkernel: str
    python: str
    platform: str
    cpu_cores: int
    memory_total_bytes: int
    memory_free_bytes: int
    model_cache: str
    model_cache_free_bytes: int
    gpus: list[Gpu]
    libraries: list[Library]
    fits: list[Fit]
    problems: list[str]

    @property
    def healthy(self) -> bool:
        """Whether a worker can be started here."""
        return not self.problems


def examine() -> Report:
    """Look at this machine. Takes under a second, starts no worker and imports no torch."""
    memory = psutil.virtual_memory()
    gpus, gpu_problems = find_gpus()
    libraries = [library(name) for name in LIBRARIES]
    cache = model_cache()
    return Report(
        llmkernel=__version__,
        python=platform.python_version(),
        platform=platform.platform(),
        cpu_cores=psutil.cpu_count() or 1,
        memory_total_bytes=memory.total,
        memory_free_bytes=memory.available,
        model_cache=str(cache),
        model_cache_free_bytes=disk_free(cache),
        gpus=gpus,
        libraries=libraries,
        fits=fits(gpus, memory.available),
        problems=[
            *gpu_problems,
            *library_problems(libraries),
            *torch_problems(libraries, gpus),
            *encryption_problems(),
            *runtime_problems(),
        ],
    )


def find_gpus() -> tuple[list[Gpu], list[str]]:
    """The NVIDIA devices that the driver shows, and what is wrong with it. Neither is no GPU."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return [], []
    names = "index,name,memory.total,memory.free,driver_version,compute_cap"
    command = [program, f"--query-gpu={names}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return [], [f"nvidia-smi does not answer ({type(error).__name__}). Check the driver."]
    if done.returncode != 0:
        said = (done.stdout + done.stderr).strip().splitlines() or ["nothing"]
        return [], [f"nvidia-smi failed and said: {said[0]} Check the driver."]
    return [parse_gpu(row) for row in done.stdout.splitlines() if row.count(",") >= 5], []


def parse_gpu(row: str) -> Gpu:
    """One line of nvidia-smi's table; memory is in MiB there, "[N/A]" where it is shared."""
    index, name, total, free, driver, capability = (cell.strip() for cell in row.split(","))
    return Gpu(
        index=int(index),
        name=name,
        total_bytes=_mebibytes(total),
        free_bytes=_mebibytes(free),
        driver=driver,
        compute_capability=capability,
    )


def fits(gpus: list[Gpu], free_memory: int) -> list[Fit]:
    """Each size with the first device that has room: the GPU with most free, else the CPU."""
    best = max(gpus, key=lambda gpu: gpu.free_bytes, default=None)
    found = []
    for shape in SHAPES:
        needed = shape.needed_bytes()
        if best is not None and needed <= best.free_bytes:
            on = f"gpu {best.index}"
        else:
            on = "cpu" if needed <= free_memory else ""
        found.append(Fit(shape.label, shape.example, needed, on))
    return found


def library(name: str) -> Library:
    """What is installed of one package, and whether it is too old."""
    try:
        found = version(name)
    except PackageNotFoundError:
        return Library(name, None)
    least = MINIMUM.get(name)
    if least is not None and _release(found) < _release(least):
        return Library(name, found, f"needs {least} or newer")
    return Library(name, found)


def library_problems(libraries: list[Library]) -> list[str]:
    """What keeps a worker from starting: absent and outdated packages."""
    absent = [
        entry.name for entry in libraries if entry.version is None and entry.name in _WORKER_NEEDS
    ]
    problems = [
        f"{entry.name} {entry.version} {entry.problem}." for entry in libraries if entry.problem
    ]
    if absent:
        problems.append(
            f"Not installed: {', '.join(absent)}. A worker needs them: pip install 'llmkernel[worker]'"
        )
    return problems


def torch_problems(libraries: list[Library], gpus: list[Gpu]) -> list[str]:
    """Why torch would not use a GPU that is there. Asks torch itself, in a process of its own."""
    installed = any(entry.name == "torch" and entry.version for entry in libraries)
    if not gpus or not installed:
        return []
    question = "import torch; print(torch.version.cuda, torch.cuda.is_available())"
    try:
        done = subprocess.run(
            [sys.executable, "-c", question],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return ["torch did not import within two minutes."]
    if done.returncode != 0:
        said = done.stderr.strip().splitlines() or ["nothing"]
        return [f"torch cannot be imported and said: {said[-1]}"]
    cuda, _, available = done.stdout.strip().rpartition(" ")
    if available == "True":
        return []
    if cuda == "None":
        return ["This torch is built for the CPU alone. Install a CUDA build to use the GPU."]
    return [f"torch (CUDA {cuda}) cannot use the GPU. The driver may be too old for it."]


def encryption_problems() -> list[str]:
    """Why a client and a worker could not talk: libzmq without CURVE, or one with known holes."""
    import zmq

    if not zmq.has("curve"):
        return ["This pyzmq is built without CURVE encryption. Reinstall it from a wheel."]
    if zmq.zmq_version_info() < (4, 3, 4):
        return [
            f"libzmq {zmq.zmq_version()} has known holes; pyzmq 26.2 or newer brings a safe one."
        ]
    return []


def runtime_problems() -> list[str]:
    """Why connection files could not be written or trusted."""
    try:
        folder = paths.runtime_folder(make=True)
        with tempfile.TemporaryFile(dir=folder):
            return []
    except LLMKernelError as error:
        return [error.message]
    except OSError as error:
        return [f"Jupyter's runtime folder cannot be written: {error}."]


def model_cache() -> Path:
    """The folder that hub downloads go to."""
    try:
        from huggingface_hub.constants import HF_HUB_CACHE
    except ImportError:
        return Path.home() / ".cache" / "huggingface" / "hub"
    return Path(HF_HUB_CACHE)


def disk_free(folder: Path) -> int:
    """Bytes free on the disk where `folder` is or would be made."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return shutil.disk_usage(folder).free


def _mebibytes(cell: str) -> int:
    return int(cell) * 2**20 if cell.isdigit() else 0


def _release(text: str) -> tuple[int, ...]:
    numbers = []
    for part in text.partition("+")[0].split("."):
        if not part.isdigit():
            break  # "2.13.0rc1": the rest orders below, which no minimum here turns on
        numbers.append(int(part))
    return tuple(numbers)
