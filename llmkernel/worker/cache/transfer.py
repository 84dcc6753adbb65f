"""Tensors between a device and safetensors files: large pieces, several at once; `check` looks at every byte.

A thread has a staging buffer (pinned for a GPU), reads a range of a file into it, and copies it
to the tensors that lie in the range.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from llmkernel.errors import BrokenCheckpoint
from llmkernel.worker import checkpoint
from llmkernel.worker.cache.checksum import checksum
from llmkernel.worker.cache.manifest import Torn

_THREADS = 4
_PIECE = 32 * 2**20
"""Bytes of a staging buffer."""
_FILE = 2**30
"""A file is closed when it has as many bytes, so that several can be written at once."""
_DTYPES = {
    torch.bool: "BOOL", torch.uint8: "U8", torch.int8: "I8", torch.int16: "I16",
    torch.int32: "I32", torch.int64: "I64", torch.float16: "F16", torch.bfloat16: "BF16",
    torch.float32: "F32", torch.float64: "F64",
}  # fmt: skip
_NAMES = {name: dtype for dtype, name in _DTYPES.items()}

Count = Callable[[int], None]
"""Told how many bytes have been copied, from several threads."""


class _Piece(NamedTuple):
    """Bytes of the tensor `name` from `start` on, at `place` in the staging buffer."""

    name: str
    start: int
    place: int
    length: int


class _Job(NamedTuple):
    """A range of a file for one staging buffer."""

    path: Path
    offset: int
    length: int
    pieces: list[_Piece]


def write(tensors: Mapping[str, Tensor], folder: Path, count: Count) -> dict[str, int]:
    """Write tensors into safetensors files of an empty `folder`; their names and sizes.

    Raises OSError where there is no room. The dtypes are those of `holds`.
    """
    groups = list(_groups(tensors))
    paths = [folder / f"weights-{index + 1:03}.safetensors" for index in range(len(groups))]
    with ThreadPoolExecutor(_THREADS, "llmkernel-keep") as pool:
        jobs = [
            pool.submit(_write_file, path, group, count)
            for path, group in zip(paths, groups, strict=True)
        ]
        try:
            return {path.name: job.result() for path, job in zip(paths, jobs, strict=True)}
        finally:
            for job in jobs:
                job.cancel()


def holds(tensor: Tensor) -> bool:
    """Whether a tensor can be written as it is."""
    return tensor.dtype in _DTYPES and tensor.layout is torch.strided


def sums(tensors: Mapping[str, Tensor]) -> dict[str, int]:
    """The checksum of each tensor: of its bytes, and of what they are read as."""
    if not tensors:
        return {}
    found = torch.stack([checksum(octets(tensor)) for tensor in tensors.values()]).tolist()
    return {
        name: value ^ zlib.crc32(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
        for (name, tensor), value in zip(tensors.items(), found, strict=True)
    }


def read(
    folder: Path, files: Mapping[str, int], device: torch.device, count: Count
) -> dict[str, Tensor]:
    """The tensors of `files` on `device`, as they are there; `check` tells whether they are whole.

    Raises Torn where they cannot be read, and torch.OutOfMemoryError.
    """
    try:
        headers = {name: checkpoint.read_header(folder / name) for name in files}
        shapes = {name: entry for header in headers.values() for name, entry in header.items()}
        if len(shapes) < sum(map(len, headers.values())):
            raise Torn("two of its files hold a tensor of the same name")
        if strange := {entry.dtype for entry in shapes.values()} - _NAMES.keys():
            raise Torn(f"its files hold tensors of {min(strange)}")
        filled = {
            name: torch.empty(entry.size, dtype=torch.uint8, device=device)
            for name, entry in shapes.items()
        }
        jobs = [job for name, header in headers.items() for job in _jobs(folder / name, header)]
        _read_all(jobs, filled, device, count)
    except (OSError, BrokenCheckpoint) as error:
        raise Torn(f"its files cannot be read: {error}") from None
    return {
        name: filled[name].view(_NAMES[entry.dtype]).view(entry.shape)
        for name, entry in shapes.items()
    }


def check(tensors: Mapping[str, Tensor], expected: Mapping[str, int]) -> None:
    """Raise Torn where these are other tensors than the `expected` ones, by name and checksum."""
    if tensors.keys() != expected.keys():
        raise Torn("its files hold other tensors than it says")
    found = sums(tensors)
    if wrong := sorted(name for name, value in found.items() if value != expected[name]):
        raise Torn(f"{wrong[0]} is not as it was written; of such there are {len(wrong)}")


def octets(tensor: Tensor) -> Tensor:
    """The bytes of a tensor, uint8 [bytes]: a view where that is possible."""
    flat = tensor.detach().contiguous().flatten()
    if flat.data_ptr() % 8 or flat.storage_offset() * flat.element_size() % 8:
        flat = flat.clone()  # it is looked at in words
    return flat.view(torch.uint8)


def _groups(tensors: Mapping[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    group: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        group[name] = tensor
        if sum(one.nbytes for one in group.values()) >= _FILE:
            yield group
            group = {}
    if group:
        yield group


def _write_file(path: Path, tensors: Mapping[str, Tensor], count: Count) -> int:
    """Write one file; its size."""
    header = _header(tensors)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb", 0) as file:
        _write_bytes(file.fileno(), header)
        staging: Tensor | None = None
        for tensor in tensors.values():
            for piece in torch.split(octets(tensor), _PIECE):
                if piece.device.type != "cpu":
                    staging = _staging(piece.device) if staging is None else staging
                    piece = staging[: len(piece)].copy_(piece)  # noqa: PLW2901
                _write_bytes(file.fileno(), _memory(piece))
                count(len(piece))
        return os.fstat(file.fileno()).st_size


def _write_bytes(fd: int, data: bytes | memoryview) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(fd, rest) :]


def _header(tensors: Mapping[str, Tensor]) -> bytes:
    entries, end = {}, 0
    for name, tensor in tensors.items():
        start, end = end, end + tensor.nbytes
        entries[name] = {
            "dtype": _DTYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(entries).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _jobs(path: Path, header: Mapping[str, checkpoint.Tensor]) -> Iterator[_Job]:
    """The whole file in ranges of a staging buffer."""
    ordered = sorted(header.items(), key=lambda item: item[1][2:])
    data = path.stat().st_size - max((entry.end for entry in header.values()), default=0)
    pieces: list[_Piece] = []
    begin = filled = 0
    for name, entry in ordered:
        done = 0
        while done < entry.size:
            length = min(entry.size - done, _PIECE - filled)
            pieces.append(_Piece(name, done, filled, length))
            done, filled = done + length, filled + length
            if filled == _PIECE:
                yield _Job(path, data + begin, filled, pieces)
                begin, filled, pieces = begin + filled, 0, []
    if pieces:
        yield _Job(path, data + begin, filled, pieces)


def _read_all(
    jobs: list[_Job], filled: Mapping[str, Tensor], device: torch.device, count: Count
) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)  # the memory may have been somebody else's a moment ago
    with ThreadPoolExecutor(_THREADS, "llmkernel-read") as pool:
        shares = [jobs[start::_THREADS] for start in range(_THREADS)]
        for done in [pool.submit(_read_share, s, filled, device, count) for s in shares if s]:
            done.result()


def _read_share(
    jobs: list[_Job], filled: Mapping[str, Tensor], device: torch.device, count: Count
) -> None:
    staging = _staging(device)
    host = _memory(staging)
    stream: Any = None
    if device.type == "cuda":
        stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    for job in jobs:
        _read_range(job.path, job.offset, host[: job.length])
        with nullcontext() if stream is None else torch.cuda.stream(stream):
            for name, start, place, length in job.pieces:
                source = staging[place : place + length]
                filled[name][start : start + length].copy_(source, non_blocking=True)
        if stream is not None:
            stream.synchronize()  # the buffer is filled again
        count(job.length)


def _read_range(path: Path, offset: int, target: memoryview) -> None:
    with path.open("rb", buffering=0) as file:
        while target:
            got = os.preadv(file.fileno(), [target], offset)
            if not got:
                raise OSError(f"{path.name} ends too early")
            target, offset = target[got:], offset + got


def _memory(octets: Tensor) -> memoryview:
    array: Any = octets.numpy()
    return memoryview(array)


def _staging(device: torch.device) -> Tensor:
    return torch.empty(_PIECE, dtype=torch.uint8, pin_memory=device.type == "cuda")
