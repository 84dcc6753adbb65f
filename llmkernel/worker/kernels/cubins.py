"""What NVRTC made of a CUDA source, kept on disk: compiling takes a second each, loading a millisecond.

A file is a digest of what follows, the length of the kernel's name, the name and the machine code.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import secrets
import stat
from pathlib import Path
from typing import Any, NamedTuple

import torch

from llmkernel import paths

_DIGEST = 16
_MOST = 512
"""Files that are kept; of the order of 100 kB each."""
_log = logging.getLogger(__name__)


class _Compiled(NamedTuple):
    code: bytes
    name: str
    """As the compiler calls the kernel."""


def load(source: str, name: str) -> Any:
    """The kernel `name` of a CUDA `source`, as torch.cuda gives it, for the current device.

    Compiled where it is not kept. Raises RuntimeError where it cannot be built or loaded.
    """
    utils: Any = torch.cuda._utils
    file = _file(source, name)
    kept = _read(file) if file is not None else None
    if kept is not None:
        try:
            return utils._cuda_load_module(kept.code, [kept.name])[kept.name]
        except RuntimeError as error:  # whole, and yet nothing for this driver
            _log.warning("a kept kernel is compiled again: %s", error)
    made = _Compiled(*utils._nvrtc_compile(source, name))
    loaded = utils._cuda_load_module(made.code, [made.name])[made.name]
    if file is not None:
        _write(file, made)
    return loaded


def keep(source: str, name: str) -> bool:
    """Compile it where it is not kept, so that `load` takes a millisecond; False where nothing can be.

    Has nothing done on the GPU, so a thread of its own may call it while others compute. Raises
    RuntimeError where it cannot be built.
    """
    file = _file(source, name)
    if file is not None and _read(file) is None:
        utils: Any = torch.cuda._utils
        _write(file, _Compiled(*utils._nvrtc_compile(source, name)))
    return file is not None


def _file(source: str, name: str) -> Path | None:
    """Where the kernel is kept, whose compiler comes with torch; None where nothing can be."""
    capability = torch.cuda.get_device_capability()
    known = (torch.__version__, torch.version.cuda, capability, name, source)
    digest = hashlib.blake2b("\0".join(map(str, known)).encode(), digest_size=16)
    try:
        folder = paths.cache_folder() / "kernels"
        folder.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        _log.warning("kernels are not kept: %s", error)
        return None
    return folder / f"{digest.hexdigest()}.cubin"


def _read(file: Path) -> _Compiled | None:
    """What is kept; None for what is not there, torn, or could be written by others."""
    try:
        with open(os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as opened:
            facts = os.fstat(opened.fileno())
            if facts.st_uid != os.geteuid() or facts.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                return None
            digest, rest = opened.read(_DIGEST), opened.read()
    except OSError:
        return None
    if not rest or _digest(rest) != digest:
        return None
    end = 1 + rest[0]
    return _Compiled(rest[end:], rest[1:end].decode())


def _write(file: Path, made: _Compiled) -> None:
    name = made.name.encode()
    if len(name) > 255:
        return
    rest = bytes([len(name)]) + name + made.code
    fresh = file.with_name(f".{secrets.token_hex(8)}")
    try:
        _make_room(file.parent)
        with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as opened:
            opened.write(_digest(rest) + rest)
        fresh.rename(file)
    except OSError as error:
        _log.warning("a kernel could not be kept: %s", error)
        with contextlib.suppress(OSError):
            fresh.unlink(missing_ok=True)


def _make_room(folder: Path) -> None:
    """Remove the oldest half where there are too many."""
    files = list(folder.iterdir())
    if len(files) < _MOST:
        return
    for file in sorted(files, key=lambda file: file.stat().st_mtime)[: _MOST // 2]:
        file.unlink(missing_ok=True)


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=_DIGEST).digest()
