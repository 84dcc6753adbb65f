"""What a kept model consists of: the file that is read before, and believed only if it is whole."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated

import msgspec

NAME = "manifest.json"


class Torn(Exception):
    """What is kept cannot be used, and why."""


class Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A layer of the model that is a range of rows of a merged one."""

    name: str
    rows: int


class Layer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A packed layer: its name, the numbers and the table of its matrix, and which of its fields are tensors.

    The tensors are called as the field, behind the layer's name. `parts` are the layers that
    were merged into it, none where it stands for itself.
    """

    name: str
    sizes: dict[str, int]
    code: Annotated[tuple[float, ...], msgspec.Meta(min_length=16, max_length=16)]
    tensors: list[str]
    bias: bool
    kernels: bool
    parts: list[Part]


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A kept model.

    `facts` are those of `identity`; `bytes` are those of all tensors;
    `files` are names and sizes; `sums` have the checksum of
    each tensor. `aliases` are further names of a tensor, as of tied embeddings.
    """

    facts: dict[str, str]
    bytes: int
    files: dict[str, int]
    sums: dict[str, int]
    aliases: dict[str, str]
    layers: list[Layer]


class _Sealed(msgspec.Struct, forbid_unknown_fields=True):
    """The file: `digest` is of the bytes of `body`."""

    digest: str
    body: msgspec.Raw


def write(folder: Path, manifest: Manifest) -> None:
    """Write the manifest of a folder whose other files are there."""
    body = msgspec.json.encode(manifest)
    sealed = _Sealed(_digest(body), msgspec.Raw(body))
    (folder / NAME).write_bytes(msgspec.json.encode(sealed))


def read(folder: Path, facts: dict[str, str]) -> Manifest:
    """The manifest of a folder that was made of `facts`.

    Raises Torn where it is no whole one, or is of something else, or files have other sizes.
    """
    try:
        sealed = msgspec.json.decode((folder / NAME).read_bytes(), type=_Sealed)
        body = bytes(sealed.body)
        found = msgspec.json.decode(body, type=Manifest)
        sizes = {name: (folder / Path(name).name).stat().st_size for name in found.files}
    except (msgspec.DecodeError, OSError) as error:
        raise Torn(f"its manifest cannot be read: {error}") from None
    if _digest(body) != sealed.digest:
        raise Torn("its manifest was changed")
    if found.facts != facts:
        raise Torn("it was made of something else")
    if sizes != found.files:
        raise Torn("its files are not as long as they were written")
    return found


def _digest(body: bytes) -> str:
    return hashlib.blake2b(body, digest_size=16).hexdigest()
