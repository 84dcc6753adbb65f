"""The quantised layers of a checkpoint: found in its files, checked, and read into a model."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from llmkernel.errors import BrokenCheckpoint, UnsupportedModel
from llmkernel.protocol import Progress
from llmkernel.worker.checkpoint import Checkpoint
from llmkernel.worker.formats.format import FLOATS, Entry, Format, group_length
from llmkernel.worker.formats.matrix import pack, packed_bytes
from llmkernel.worker.kernels.plans import COLUMNS, ROWS
from llmkernel.worker.models.packed import PackedLinear

_PARTS = ("qweight", "qzeros", "scales", "g_idx")
_MARK = ".qweight"
_BYTES_A_WEIGHT = 5
"""What unpacking a layer takes besides the result: the files' words, a byte a value, copies."""

Report = Callable[[Progress], None]


class Layer(NamedTuple):
    """A linear layer that is quantised in the files. `bias` says whether the model has one."""

    name: str
    rows: int
    columns: int
    bias: bool


@dataclass(frozen=True, slots=True)
class StoredLayers:
    """All of them, as `find` saw them."""

    found: Checkpoint
    format: Format
    layers: tuple[Layer, ...]

    @property
    def names(self) -> list[str]:
        """The layers' names in the model."""
        return [layer.name for layer in self.layers]

    def tensors(self, layer: Layer) -> list[str]:
        """The names of a layer's tensors in the files."""
        possible = [f"{layer.name}.{part}" for part in (*_PARTS, "bias")]
        return [name for name in possible if name in self.found.tensors]

    def size(self, layer: Layer) -> int:
        """Bytes of a layer in the files."""
        return sum(self.found.tensors[name].size for name in self.tensors(layer))

    def peak_bytes(self, model: nn.Module, dtype: torch.dtype) -> int:
        """Bytes that the weights of an empty `model` take at most while they are read."""
        weights = {layer.name: layer.rows * layer.columns for layer in self.layers}
        whole = sum(parameter.numel() for parameter in model.parameters())
        plain = (whole - sum(weights.values())) * dtype.itemsize
        packed = sum(self._packed_bytes(layer) for layer in self.layers)
        return plain + packed + _BYTES_A_WEIGHT * max(weights.values())

    def read_into(
        self, model: nn.Module, device: torch.device, dtype: torch.dtype, report: Report
    ) -> None:
        """Put the layers into a `model` that has holes in their places; see `with_holes`.

        Reports the bytes read, of all that are in the files. Raises BrokenCheckpoint where
        numbers contradict the format.
        """
        total = self.found.stored_bytes
        done = total - sum(self.size(layer) for layer in self.layers)
        with _opened(self.found, device) as tensor:
            for layer in self.layers:
                model.set_submodule(layer.name, self._module(layer, tensor, dtype))
                done += self.size(layer)
                report(Progress(stage="read", done=done, total=total, unit="bytes"))
        model.__class__ = type(model).__bases__[0]  # it has no holes any more

    def before(self, report: Report) -> Report:
        """A report of transformers' tensors as bytes: those that are read before the layers."""
        total = self.found.stored_bytes
        rest = total - sum(self.size(layer) for layer in self.layers)

        def relay(step: Progress) -> None:
            done = rest * step.done // step.total if step.total else 0
            report(Progress(stage=step.stage, done=done, total=total, unit="bytes"))

        return relay

    def _packed_bytes(self, layer: Layer) -> int:
        length = group_length(self.format.group_size, layer.columns)
        return packed_bytes(
            layer.rows,
            layer.columns,
            length,
            offsets=not self.format.symmetric,
            order=self.format.reorders,
        )

    def _module(
        self, layer: Layer, tensor: Callable[[str], Tensor], dtype: torch.dtype
    ) -> PackedLinear:
        tensors = {name.rpartition(".")[2]: tensor(name) for name in self.tensors(layer)}
        bias = tensors.pop("bias", None)
        if bias is not None and not layer.bias:
            if bias.any():  # of old writers, which had one of zeros everywhere
                raise BrokenCheckpoint(
                    f"{layer.name} has a bias in the files and none in the model."
                )
            bias = None
        try:
            packed = pack(self.format.matrix(tensors))
        except BrokenCheckpoint as error:
            raise BrokenCheckpoint(f"{layer.name}: {error.message}") from None
        return PackedLinear(packed, None if bias is None else bias.to(dtype), kernels=False)


def find(found: Checkpoint, model: Any, form: Format) -> StoredLayers:
    """The quantised layers of a checkpoint; `model` is the one of its configuration, empty.

    Raises UnsupportedModel for layers that cannot be held packed, BrokenCheckpoint where tensors
    are missing or of another shape or dtype than the configuration says.
    """
    linear = dict(_linear_layers(model))
    quantised = [name.removesuffix(_MARK) for name in found.tensors if name.endswith(_MARK)]
    if not quantised:
        raise BrokenCheckpoint(
            f"config.json says that the weights are quantised by {form.name}, and the files hold "
            "none that are."
        )
    _refuse_strange_parts(found, set(quantised))
    head = next((n for n, m in model.named_modules() if m is model.get_output_embeddings()), "")
    layers = []
    for name in sorted(quantised):
        if name == head:
            raise UnsupportedModel(
                f"{name}, the output head, is quantised, which is not supported. Use a checkpoint "
                "whose head is not."
            )
        if name not in linear:
            raise UnsupportedModel(
                f"{name} is quantised by {form.name}, and transformers keeps it in no linear layer "
                "of its own, as with experts. Use the unquantised model."
            )
        _check(found, linear[name], form)
        layers.append(linear[name])
    return StoredLayers(found, form, tuple(layers))


def with_holes(kind: Any, layers: StoredLayers) -> type[Any]:
    """A model class whose models have holes in the places of `layers`.

    What the files hold of these layers, transformers passes over without a word.
    """

    def build(self: nn.Module, *positional: Any, **named: Any) -> None:
        kind.__init__(self, *positional, **named)
        for name in layers.names:
            self.set_submodule(name, _Hole())

    names = "|".join(map(re.escape, layers.names))
    ignored = rf"^(?:{names})\.(?:{'|'.join((*_PARTS, 'bias'))})$"
    known = kind._keys_to_ignore_on_load_unexpected or ()
    members = {
        "__init__": build,
        "__module__": kind.__module__,
        "_keys_to_ignore_on_load_unexpected": [*known, ignored],
    }
    return type(kind.__name__, (kind,), members)


class _Hole(nn.Module):
    """The place of a layer that is read later."""

    def __init__(self) -> None:
        super().__init__()
        # GPT-2's code gives some layers' weights random numbers of their own, and looks for them
        self.weight = torch.empty(0, device="meta")


def _linear_layers(model: nn.Module) -> Iterator[tuple[str, Layer]]:
    from transformers.pytorch_utils import Conv1D

    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            sizes = module.out_features, module.in_features
        elif isinstance(module, Conv1D):
            sizes = module.weight.shape[1], module.weight.shape[0]
        else:
            continue
        yield name, Layer(name, *sizes, module.bias is not None)


def _refuse_strange_parts(found: Checkpoint, quantised: set[str]) -> None:
    for name in found.tensors:
        layer, _, part = name.rpartition(".")
        if part in _PARTS and layer not in quantised:
            raise UnsupportedModel(
                f"{name} in the files belongs to no quantised layer, as with scaled activations, "
                "which are not supported. Use the unquantised model."
            )
        if part == "weight" and layer in quantised:
            raise BrokenCheckpoint(f"{layer} is in the files both quantised and not.")


def _check(found: Checkpoint, layer: Layer, form: Format) -> None:
    if any(f".{name}." in f".{layer.name}." for name in form.kept):
        raise BrokenCheckpoint(
            f"config.json says that {layer.name} is not quantised, and in the files it is."
        )
    if layer.rows % ROWS or layer.columns % COLUMNS:
        raise UnsupportedModel(
            f"{layer.name} has {layer.columns} inputs and {layer.rows} outputs; quantised layers "
            f"are supported where these are multiples of {COLUMNS} and {ROWS}."
        )
    entries = form.entries(layer.rows, layer.columns)
    entries["bias"] = Entry(FLOATS, (layer.rows,), needed=layer.bias)
    for part, entry in entries.items():
        _check_entry(found, f"{layer.name}.{part}", entry)


def _check_entry(found: Checkpoint, name: str, entry: Entry) -> None:
    stored = found.tensors.get(name)
    if stored is None:
        if entry.needed:
            raise BrokenCheckpoint(f"{name} is not in the files. Download the model again.")
        return
    if stored.shape != entry.shape:
        raise BrokenCheckpoint(
            f"{name} is {list(stored.shape)} in the files, and {list(entry.shape)} by config.json."
        )
    if stored.dtype not in entry.dtypes:
        raise BrokenCheckpoint(
            f"{name} is stored as {stored.dtype}, and should be {' or '.join(entry.dtypes)}."
        )


@contextlib.contextmanager
def _opened(found: Checkpoint, device: torch.device) -> Iterator[Callable[[str], Tensor]]:
    """Within this, tensors of the files by name, on `device`."""
    from safetensors import safe_open

    with contextlib.ExitStack() as stack:
        files: dict[str, Any] = {}

        def tensor(name: str) -> Tensor:
            file = found.files[name]
            if file not in files:
                opened = safe_open(found.folder / file, framework="pt", device=str(device))
                files[file] = stack.enter_context(opened)
            return files[file].get_tensor(name)  # type: ignore[no-any-return]

        yield tensor
