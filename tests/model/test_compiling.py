"""Kernels that are compiled while others serve: all that products launch, and no trouble."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import torch
from torch import nn

from benchmarks import tiny_models
from llmkernel.worker.kernels import cubins, four_bit, launch, plans, tiles
from llmkernel.worker.models import PagedState, compiling, make_paged
from llmkernel.worker.models.fused import PROBES, FusedLayer, fuse_layers
from llmkernel.worker.models.packed import PackedLinear, pack_layers
from tests.model.quantised import quantise

Kernel = tuple[str, frozenset[tuple[str, int]]]
BF16 = torch.bfloat16
PROCESSORS, SHARED, CACHE = 4, 227 * 1024, 2**20


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> Iterator[set[Kernel]]:
    """Kernels that products have launched, none of which computes anything."""
    asked: set[Kernel] = set()

    def kernel(name: str, dtype: torch.dtype, shared: int = 0, **sizes: int) -> object:
        asked.add((name, frozenset(sizes.items())))
        return lambda *arguments: None

    caches = (
        four_bit._few_kernel,
        four_bit._ring_kernel,
        four_bit._many_kernel,
        four_bit._counters,
    )
    monkeypatch.setattr(launch, "kernel", kernel)
    monkeypatch.setattr(four_bit, "_on_gpu", lambda x: True)
    monkeypatch.setattr(four_bit, "processors", lambda device: PROCESSORS)
    monkeypatch.setattr(four_bit, "shared_memory", lambda device: SHARED)
    monkeypatch.setattr(four_bit, "second_cache", lambda device: CACHE)
    for cache in caches:
        cache.cache_clear()
    yield asked
    for cache in caches:
        cache.cache_clear()


def matrix(rows: int, columns: int, group: int = 64, offsets: bool = False) -> tiles.Packed:
    nibbles = torch.zeros(rows, columns // 2, dtype=torch.uint8)
    scales = torch.ones(rows, columns // group)
    return tiles.pack(nibbles, scales, torch.zeros(16), scales if offsets else None)


@pytest.mark.parametrize("rows", [32, 64, 96, 192, 256, 448, 896])
@pytest.mark.parametrize("columns", [64, 832, 4160, 8192])
@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("gated", [False, True])
def test_what_products_launch_is_what_is_compiled(rows, columns, norm, gated, launched):
    packed = matrix(rows, columns)
    normed = four_bit.Norm(torch.ones(columns, dtype=BF16), 1e-5) if norm else None
    for count in [*range(1, plans.MANY_TOKENS + 12), 127, 128, 129]:
        x = torch.zeros(count, columns, dtype=BF16)
        four_bit.product(x, packed, norm=normed, gated=gated)
    wanted = four_bit.kernels_of(packed, norm=norm, gated=gated)
    assert {(name, frozenset(sizes.items())) for name, sizes in wanted} == launched


@pytest.mark.parametrize(
    ("count", "room", "names"),
    [
        (64, 0, {"four_bit_many"}),
        (65, 0, {"four_bit_many"}),
        (128, 0, {"four_bit_many"}),
        (129, 0, {"four_bit_expand"}),
        (64, 2**30, {"four_bit_many"}),
        (65, 2**30, {"four_bit_expand"}),
    ],
)
def test_weights_are_expanded_for_more_tokens_than_launches_are_good_for(
    count, room, names, launched, monkeypatch
):
    monkeypatch.setattr(four_bit, "second_cache", lambda device: room)
    four_bit.product(torch.zeros(count, 512, dtype=BF16), matrix(64, 512))
    assert {name for name, _ in launched} - {"rms_norm"} == names


@pytest.mark.parametrize(("group", "offsets", "ordered"), [(32, True, False), (128, True, True)])
def test_other_formats_are_compiled_too(group, offsets, ordered, launched):
    packed = matrix(1024, 512, group, offsets)
    if ordered:
        packed = packed._replace(order=torch.arange(512))
    norm = four_bit.Norm(torch.ones(512, dtype=BF16), 1e-5)
    for count in (1, 9, 20, 30, 40, 64, 65):
        four_bit.product(torch.zeros(count, 512, dtype=BF16), packed, norm=norm)
        four_bit.product(torch.zeros(count, 512, dtype=BF16), packed)
    wanted = {
        (name, frozenset(sizes.items()))
        for with_norm in (True, False)
        for name, sizes in four_bit.kernels_of(packed, norm=with_norm, gated=False)
    }
    assert launched <= wanted


def test_each_kernel_of_a_model_is_compiled_once(launched):
    first, second = matrix(64, 512), matrix(64, 512)
    other = matrix(128, 64)
    layers = [PackedLinear(packed, None) for packed in (first, second, other)]
    model = nn.Sequential(*layers, PackedLinear(matrix(80, 128), None, kernels=False))
    found = list(compiling.kernels_of(model))
    expected = [
        kernel
        for packed in (first, other)
        for kernel in four_bit.kernels_of(packed, norm=False, gated=False)
    ]
    assert len(found) == len({str(kernel) for kernel in found})
    assert {str(kernel) for kernel in found} == {str(kernel) for kernel in expected}


@pytest.fixture
def model(launched, monkeypatch) -> nn.Module:
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    return nn.Sequential(PackedLinear(matrix(64, 512), None))


def test_kernels_are_compiled_on_a_thread_of_their_own(model, monkeypatch):
    kept, threads = [], set()

    def keep(name: str, dtype: torch.dtype, **sizes: int) -> bool:
        threads.add(threading.current_thread().name)
        kept.append((name, sizes))
        return True

    monkeypatch.setattr(launch, "keep", keep)
    compiling.begin(model, BF16, torch.device("cpu")).join(10)
    assert kept == list(compiling.kernels_of(model))
    assert threads == {"llmkernel-compile"}


def test_nothing_is_compiled_where_nothing_can_be_kept(model, monkeypatch):
    asked = []
    monkeypatch.setattr(launch, "keep", lambda name, dtype, **sizes: asked.append(name))
    compiling.begin(model, BF16, torch.device("cpu")).join(10)
    assert len(asked) == 1


def test_a_kernel_that_cannot_be_built_is_said_once_and_the_others_are_built(
    model, monkeypatch, caplog
):
    asked = []

    def keep(name: str, dtype: torch.dtype, **sizes: int) -> bool:
        asked.append(name)
        if name == "four_bit_many":
            raise RuntimeError("no such instruction")
        return True

    monkeypatch.setattr(launch, "keep", keep)
    compiling.begin(model, BF16, torch.device("cpu")).join(10)
    wanted = [name for name, _ in compiling.kernels_of(model)]
    assert wanted.count("four_bit_many") > 1
    assert asked == wanted
    (record,) = caplog.records
    assert "no such instruction" in record.getMessage()
    caplog.clear()


def test_the_end_of_the_process_waits_for_one_kernel_and_not_for_all(model, monkeypatch):
    ends, asked = [], []
    compiles, ended = threading.Event(), threading.Event()

    def keep(name: str, dtype: torch.dtype, **sizes: int) -> bool:
        asked.append(name)
        compiles.set()
        return ended.wait(10)

    monkeypatch.setattr(launch, "keep", keep)
    monkeypatch.setattr(compiling.atexit, "register", ends.append)
    thread = compiling.begin(model, BF16, torch.device("cpu"))
    assert compiles.wait(10)
    (end,) = ends
    threading.Timer(0.2, ended.set).start()
    end()
    assert not thread.is_alive()
    assert len(asked) == 1 < len(list(compiling.kernels_of(model)))


@pytest.mark.filterwarnings("ignore:.*script_method:DeprecationWarning")
@pytest.mark.parametrize("name", ["llama", "qwen3"])
def test_what_first_steps_launch_is_compiled_ahead(name, launched, monkeypatch):
    asked, threads, dtypes = [], set(), set()

    def keep(name: str, dtype: torch.dtype, **sizes: int) -> bool:
        threads.add(threading.current_thread().name)
        dtypes.add(dtype)
        asked.append((name, sizes))
        if name == "rotary":
            raise OSError("no compiler")
        return True

    monkeypatch.setattr(launch, "keep", keep)
    counts = {1, 8, 20, 100}
    model = quantise(tiny_models.build(name), torch.float32, "cpu")
    with monkeypatch.context() as plainly:
        plainly.setattr(four_bit, "_on_gpu", lambda x: False)
        assert pack_layers(model) > 0
    state = PagedState(
        model.config,
        num_blocks=4,
        block_size=16,
        context_length=64,
        dtype=torch.float32,
        device=torch.device("cpu"),
    )
    make_paged(model, state)
    compiling.ahead(model, BF16, torch.device("cpu"), counts)
    assert all(thread.startswith("llmkernel-compile") for thread in threads)
    assert dtypes == {BF16}
    for linear in (part for part in model.modules() if isinstance(part, PackedLinear)):
        plain = four_bit.kernels_of(linear.packed, norm=False, gated=False, counts=PROBES)
        assert all(kernel in asked for kernel in plain)
    tiles_of_tokens = {sizes["tokens"] for _, sizes in asked if "tokens" in sizes}
    assert tiles_of_tokens == {plans.token_tiles(count) for count in (9, 20, 64, 36)}
    head_dim = model.config.head_dim
    assert ("rope_write", {"dim": head_dim}) in asked
    found = {(name, frozenset(sizes.items())) for name, sizes in asked}
    assert len(found) == len(asked)
    assert {"rms_norm", "rotary", "likeliest", "rope_write"} < {name for name, _ in asked}
    with monkeypatch.context() as plainly:
        plainly.setattr(four_bit, "_on_gpu", lambda x: False)
        assert fuse_layers(model, state) == model.config.num_hidden_layers
    launched.clear()
    for layer in (part for part in model.modules() if isinstance(part, FusedLayer)):
        for linear, norm, gated in layer.products():
            normed = four_bit.Norm(torch.ones(linear.in_features), 1e-5) if norm else None
            for count in counts:
                x = torch.zeros(count, linear.in_features, dtype=BF16)
                four_bit.product(x, linear.packed, norm=normed, gated=gated)
    assert len(launched) > 4
    assert launched <= found


def test_a_model_whose_layers_stay_as_they_are_has_nothing_compiled_ahead(model, monkeypatch):
    monkeypatch.setattr(launch, "keep", pytest.fail)
    model.base_model = model
    compiling.ahead(model, BF16, torch.device("cpu"), {1})


def test_what_is_kept_is_what_is_loaded(monkeypatch):
    texts = []
    monkeypatch.setattr(cubins, "keep", lambda text, name: texts.append((text, name)))
    monkeypatch.setattr(cubins, "load", lambda text, name: texts.append((text, name)))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(launch, "Kernel", lambda *arguments: None)
    launch.keep("four_bit_expand", BF16, groups=2)
    launch.kernel.__wrapped__("four_bit_expand", BF16, groups=2)
    assert texts[0] == texts[1]
    assert "#define GROUPS 2" in texts[0][0]
