"""The place of one model among the kept ones: read on the side while a worker imports, filled later.

A second start finds the packed layers ready: nothing is quantised or packed, and neither
bitsandbytes nor accelerate has anything to do.
"""

from __future__ import annotations

import gc
import importlib.metadata
import logging
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from llmkernel import environment, paths
from llmkernel.errors import NotEnoughMemory
from llmkernel.protocol import Progress
from llmkernel.units import size
from llmkernel.worker import memory
from llmkernel.worker.cache import identity, manifest, transfer
from llmkernel.worker.cache.manifest import Manifest, Torn
from llmkernel.worker.cache.shelf import Entry, Shelf
from llmkernel.worker.checkpoint import Checkpoint

if TYPE_CHECKING:
    from llmkernel.worker.cache.structure import Taken

Report = Callable[[Progress], None]
_log = logging.getLogger(__name__)


class Keeper:
    """What is kept of a model that is made of `facts`; it is read onto `device` from now on.

    Raises NotEnoughMemory where it does not fit there.
    """

    def __init__(
        self, shelf: Shelf, facts: dict[str, str], device: torch.device, report: Report
    ) -> None:
        self._shelf, self._facts, self._device, self._report = shelf, facts, device, report
        self._key = identity.key(facts)
        self._entry = shelf.find(self._key, facts)
        self._tensors: Future[dict[str, Tensor]] | None = None
        if self._entry is not None:
            _check_room(self._entry, device)
            pool = ThreadPoolExecutor(1, "llmkernel-kept")
            self._tensors = pool.submit(self._read, self._entry)
            pool.shutdown(wait=False)

    @property
    def bytes(self) -> int:
        """What is kept takes on the device."""
        return 0 if self._entry is None else self._entry.manifest.bytes

    def model(self, empty: nn.Module, dtype: torch.dtype) -> nn.Module | None:
        """The kept model, made of the `empty` one of its configuration; None where there is none.

        Where there is none `empty` is not to be used any more. Waits until it is read. Raises
        torch.OutOfMemoryError.
        """
        from llmkernel.worker.cache import structure

        if self._entry is None or self._tensors is None:
            return None
        reading, self._tensors = self._tensors, None
        found = self._entry.manifest
        try:
            tensors = reading.result()
            # by this thread: an import beside it makes so many small operations a matter of seconds
            transfer.check(tensors, found.sums)
            taken = structure.Taken(tensors, found.aliases, found.layers)
            model = structure.put_together(empty, taken)
            structure.spot_check(model, dtype)
        except Torn as error:
            self._shelf.discard(self._key, str(error))
        except torch.OutOfMemoryError:
            raise
        except RuntimeError:  # of the driver or the compiler: the layers tell without them
            _log.exception("the kept weights are not used")
        else:
            _log.info("the weights are kept ones: %s", self._entry.folder)
            return model
        del reading
        gc.collect()  # what was read hangs in the traceback's cycle, and is read again now
        return None

    def keep(self, model: nn.Module, empty: nn.Module) -> None:
        """Keep a loaded model for the next start; where that fails, the log says why.

        `empty` is the one of its configuration, untouched.
        """
        from llmkernel.worker.cache import structure

        try:
            taken = structure.take(model, empty)
            needed = sum(tensor.nbytes for tensor in taken.tensors.values())
            began = time.monotonic()
            if self._shelf.add(self._key, needed, lambda folder: self._write(folder, taken)):
                _log.info("kept %s in %.1f s", size(needed), time.monotonic() - began)
        except structure.Unkept as error:
            _log.info("the weights are not kept: %s", error)
        except OSError as error:
            _log.warning("the weights could not be kept: %s", error)
        except RuntimeError:  # no memory for a copy or a buffer: the model is there without it
            _log.exception("the weights could not be kept")

    def _read(self, entry: Entry) -> dict[str, Tensor]:
        found = entry.manifest
        count = _counted(self._report, "read", found.bytes)
        began = time.monotonic()
        with torch.inference_mode(False):
            tensors = transfer.read(entry.folder, found.files, self._device, count)
        _log.info("read %s in %.1f s", size(found.bytes), time.monotonic() - began)
        return tensors

    def _write(self, folder: Path, taken: Taken) -> None:
        total = sum(tensor.nbytes for tensor in taken.tensors.values())
        files = transfer.write(taken.tensors, folder, _counted(self._report, "keep", total))
        sums = transfer.sums(taken.tensors)
        made = Manifest(self._facts, total, files, sums, taken.aliases, taken.layers)
        manifest.write(folder, made)


def keeper_of(
    found: Checkpoint,
    revision: str | None,
    *,
    quantization: str,
    device: torch.device,
    dtype: torch.dtype,
    report: Report,
) -> Keeper | None:
    """The keeper of a checkpoint's packed weights; None where nothing would be packed.

    `quantization` is the setting. Reading begins, see `Keeper`.
    """
    stored = found.quantization
    kernels = device.type == "cuda" and environment.own_kernels()
    if not _packed(stored, quantization, kernels):
        return None
    name = "nf4" if quantization == "auto" else quantization
    try:
        facts = identity.facts(
            found,
            revision,
            quantization="stored" if stored else name,
            dtype=str(dtype).removeprefix("torch."),
            kernels=kernels,
        )
        shelf = Shelf(paths.cache_folder() / "weights", environment.cache_bytes())
        return Keeper(shelf, facts, device, report)
    except (OSError, importlib.metadata.PackageNotFoundError) as error:
        _log.warning("weights are not kept: %s", error)
        return None


def _packed(stored: Mapping[str, object] | None, asked: str, kernels: bool) -> bool:
    """Whether loading makes packed layers: this project's formats, or 4 bits on its kernels."""
    if stored is not None and stored.get("quant_method") in ("gptq", "awq"):
        return True
    return kernels and (stored is not None or asked in ("auto", "nf4", "fp4"))


def _check_room(entry: Entry, device: torch.device) -> None:
    needed, free = entry.manifest.bytes, memory.free_bytes(device)
    if needed > free:
        raise NotEnoughMemory(
            f"The weights take {needed / 2**30:.2f} GiB on {device}, and {free / 2**30:.2f} GiB "
            "are free. Stop what else is there, or take a smaller model.",
            needed=needed,
            free=free,
        )


def _counted(report: Report, stage: str, total: int) -> transfer.Count:
    """Counts bytes from several threads, and reports them."""
    lock = threading.Lock()
    done = 0

    def count(more: int) -> None:
        nonlocal done
        with lock:
            done += more
            now = min(done, total)
        report(Progress(stage=stage, done=now, total=total, unit="bytes"))  # type: ignore[arg-type]

    count(0)
    return count
