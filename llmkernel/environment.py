"""The only reader of environment variables.

Each function reads at the time of the call, so tests and notebooks may change a
variable in between. A value that cannot be understood raises InvalidRequest that
names the variable and the value.

| variable | meaning |
|---|---|
| `LLMKERNEL_LOG_LEVEL` | how much a worker writes: debug, info (default), warning, error |
| `LLMKERNEL_STREAM` | 1 or 0: update notebook output while text arrives, or once at the end |
| `LLMKERNEL_CACHE` | the folder of what a second start finds ready; else llmkernel in XDG_CACHE_HOME, else in ~/.cache |
| `LLMKERNEL_CACHE_SIZE` | how much weights may take there, such as 20GB (default: 100GB) |
| `LLMKERNEL_WATCHDOG` | seconds that one engine step may take before the worker gives up; 0 is never |
| `LLMKERNEL_GATEWAY_TOKEN` | the token that clients of the gateway send; else one is kept in a file |
| `HF_TOKEN` | the hub's access token |
| `HF_HUB_OFFLINE` | 1: use the hub's cache only |
| `XDG_RUNTIME_DIR` | where sockets go; else the system's folder for temporary files |
"""

from __future__ import annotations

import math
import os
from pathlib import Path

from llmkernel.config import parse_size
from llmkernel.errors import InvalidRequest

_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"0", "false", "no", "off"})
_CACHE_SIZE = "100GB"
_WAITING = frozenset({"OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"})
"""How OpenMP's threads wait for each other, in all its libraries."""
_SPINS = "10000"
"""Longer than the pauses within a step, and much less than a turn of the processor. Measured by
`llmkernel bench -c 8` with the embedded model on two cores: 718 tokens/s, and 101 beside one busy process; with
libgomp's own 300,000 it is 506 and 19, asleep at once 278 and 416."""
_LOG_LEVELS = ("debug", "info", "warning", "error")


def log_level() -> str:
    """One of the logging level names, in upper case."""
    level = _text("LLMKERNEL_LOG_LEVEL", "info").lower()
    if level not in _LOG_LEVELS:
        raise _bad("LLMKERNEL_LOG_LEVEL", level, f"one of {', '.join(_LOG_LEVELS)}")
    return level.upper()


def stream() -> bool | None:
    """Whether notebook output is updated while text arrives; None lets the notebook decide."""
    return _flag("LLMKERNEL_STREAM")


def under_test() -> bool:
    """Whether pytest runs this process."""
    return bool(_text("PYTEST_VERSION"))


def watchdog() -> float | None:
    """Seconds one engine step may take, 0 for no limit, None for the device's default."""
    text = _text("LLMKERNEL_WATCHDOG")
    if not text:
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise _bad("LLMKERNEL_WATCHDOG", text, "a number of seconds, or 0 for no limit")
    return seconds


def gateway_token() -> str | None:
    """The token that clients of the gateway must send, where one is set."""
    return _text("LLMKERNEL_GATEWAY_TOKEN") or None


def hf_token() -> str | None:
    """The hub's access token, where one is set."""
    return _text("HF_TOKEN") or None


def hf_offline() -> bool:
    """Whether the hub may not be asked."""
    return bool(_flag("HF_HUB_OFFLINE"))


def own_kernels() -> bool:
    """Whether a GPU may use the project's own kernels; LLMKERNEL_KERNELS=0 says no."""
    return _flag("LLMKERNEL_KERNELS") is not False


def cuda_graphs() -> bool:
    """Whether they may be captured in graphs too; LLMKERNEL_CUDA_GRAPHS=0 says no."""
    return own_kernels() and _flag("LLMKERNEL_CUDA_GRAPHS") is not False


def user_runtime_dir() -> Path | None:
    """The folder that the login session gives its user for sockets, where it does."""
    text = _text("XDG_RUNTIME_DIR")
    return Path(text) if text else None


def cache_dir() -> Path:
    """The folder for what can be made again; it may not be there."""
    if text := _text("LLMKERNEL_CACHE"):
        return Path(text).expanduser()
    home = _text("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "llmkernel"


def cache_bytes() -> int:
    """How much kept weights may take."""
    text = _text("LLMKERNEL_CACHE_SIZE", _CACHE_SIZE)
    try:
        return parse_size(text)
    except InvalidRequest:
        raise _bad("LLMKERNEL_CACHE_SIZE", text, "a size such as 20GB") from None


def for_worker() -> dict[str, str]:
    """The environment that a worker is started with: this process's own.

    An interactive matplotlib backend or a debugger's hook of the notebook has no
    business in the worker, nor has the secret of a gateway. Threads of torch on the CPU spin
    for a moment only where nobody has said how they wait: those that spin for long keep the
    processor from whoever they wait for. Raises InvalidRequest for what a worker would refuse
    only after it has loaded its model.
    """
    watchdog()
    cache_bytes()
    own = dict(os.environ)
    if not _WAITING & own.keys():
        own["GOMP_SPINCOUNT"] = _SPINS
    unwanted = (
        "MPLBACKEND",
        "PYTHONBREAKPOINT",
        "PYTHONINSPECT",
        "PYDEVD_USE_FRAME_EVAL",
        "LLMKERNEL_GATEWAY_TOKEN",
    )
    return {key: value for key, value in own.items() if key not in unwanted}


def _text(name: str, default: str = "") -> str:
    return os.environ.get(name, "").strip() or default


def _flag(name: str) -> bool | None:
    text = _text(name).lower()
    if not text or text == "auto":
        return None
    if text not in _TRUE | _FALSE:
        raise _bad(name, text, "1 or 0")
    return text in _TRUE


def _bad(name: str, value: str, wanted: str) -> InvalidRequest:
    return InvalidRequest(f"The environment has {name}={value!r}; it must be {wanted}.", field=name)
