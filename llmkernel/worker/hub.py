"""From what a person calls a model to a folder on this machine.

The name is "demo", a folder, or an id on the Hugging Face hub, which is
downloaded into the hub's own cache and found there again when the hub is away.
"""

from __future__ import annotations

import contextlib
import importlib.util
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, NamedTuple

from llmkernel import environment
from llmkernel.config import DEMO_MODEL
from llmkernel.errors import (
    HubUnreachable,
    ModelGated,
    ModelNotFound,
    StartFailed,
    missing,
)
from llmkernel.protocol import Progress
from llmkernel.worker.checkpoint import INDEX, SINGLE, read_json, refuse_other_formats, shard_names

Report = Callable[[Progress], None]

TIMEOUT = 15.0
"""Seconds for the hub to answer a question."""
_SMALL_FILES = ("*.json", "*.jinja", "*.txt", "*.tiktoken", "tokenizer.model", "chat_templates/*")
_POLL_SECONDS = 0.25


class Source(NamedTuple):
    """A model's folder, and the commit where it came from the hub."""

    folder: Path
    revision: str | None = None


def resolve(model: str, revision: str | None, report: Report, *, code: bool = False) -> Source:
    """Find or fetch a model; `code` fetches its Python files as well.

    Reports the stages resolve and download. Raises ModelNotFound, ModelGated,
    HubUnreachable, UnsafeCheckpoint, UnsupportedModel, BrokenCheckpoint or, where the
    disk is full, StartFailed.
    """
    report(Progress(stage="resolve", detail=model))
    if (folder := local_folder(model, revision)) is not None:
        return Source(folder)
    patterns = ("*.py",) if code else ()
    return fetch(model, revision, lambda names: _wanted(names, model, patterns), report)


def local_folder(model: str, revision: str | None) -> Path | None:
    """The folder that `model` names; None for an id on the hub, of which nothing is asked here.

    Raises ModelNotFound for what can only be a folder and is none.
    """
    if model == DEMO_MODEL:
        return Path(__file__).parents[1] / "demo"
    path = Path(model).expanduser()
    if path.is_dir():
        if revision is not None:
            raise ModelNotFound(f"{model} is a folder and has no revisions; leave revision out.")
        return path
    if path.is_file():
        raise ModelNotFound(f"{model} is a file. Give the folder that holds config.json.")
    if model.startswith(("/", "./", "../", "~")) or "\\" in model:
        raise ModelNotFound(f"There is no folder {model}.")
    if model.count("/") > 1:  # a page of the hub, too
        raise ModelNotFound(
            f"There is no folder {model}, and on the hub a model is named ORG/NAME."
        )
    return None


Choose = Callable[[Sequence[str]], tuple[list[str], bool]]
"""Files to take of those in a repository, and whether the index names further ones."""


def fetch(model: str, revision: str | None, choose: Choose, report: Report) -> Source:
    """Bring the chosen files of a hub repository into the cache."""
    if importlib.util.find_spec("huggingface_hub") is None:
        raise missing("huggingface_hub", "worker")
    with _explained(model, revision):
        if environment.hf_offline():
            return _cached(model, revision, "HF_HUB_OFFLINE is set")
        try:
            return _Download(model, revision, report).run(choose)
        except Exception as error:
            if not _is_connection(error):
                raise
            return _cached(model, revision, "the hub does not answer")


class _Download:
    """One repository at one revision, on its way into the cache."""

    def __init__(self, model: str, revision: str | None, report: Report) -> None:
        from huggingface_hub import HfApi

        self._token = environment.hf_token()
        self._model = model
        self._report = report
        info = HfApi(token=self._token).model_info(
            model, revision=revision, files_metadata=True, timeout=TIMEOUT
        )
        self._revision = revision
        self._sizes = {file.rfilename: file.size or 0 for file in info.siblings or []}

    def run(self, choose: Choose) -> Source:
        names, sharded = choose(list(self._sizes))
        if sharded:
            folder = self._take([INDEX])
            names += shard_names(read_json(folder / INDEX))
        with _Watch(self._blobs(), self._needed(names), self._report):
            folder = self._take(names)
        return Source(folder, folder.name)

    def _take(self, names: list[str]) -> Path:
        from huggingface_hub import snapshot_download
        from tqdm.asyncio import tqdm_asyncio

        class Silent(tqdm_asyncio):  # type: ignore[type-arg]  # generic in its stubs alone
            def __init__(self, *args: Any, **kwargs: Any) -> None:
                super().__init__(*args, **(kwargs | {"disable": True}))

        return Path(
            snapshot_download(
                self._model,
                revision=self._revision,
                allow_patterns=names,
                token=self._token,
                tqdm_class=Silent,
            )
        )

    def _needed(self, names: list[str]) -> tuple[int, int]:
        """Bytes that are there already and bytes of all; raises where the disk is too full."""
        from huggingface_hub import try_to_load_from_cache

        total = sum(self._sizes.get(name, 0) for name in names)
        there = sum(
            self._sizes.get(name, 0)
            for name in names
            if isinstance(
                try_to_load_from_cache(self._model, name, revision=self._revision or "main"), str
            )
        )
        free = _disk_free(self._blobs())
        if total - there > free:
            raise StartFailed(
                f"The disk is too full: the model takes {total - there} bytes more, and {free} are "
                "free. HF_HOME can name a folder on another disk.",
                needed=total - there,
                free=free,
            )
        return there, total

    def _blobs(self) -> Path:
        from huggingface_hub import constants
        from huggingface_hub.file_download import repo_folder_name

        folder = repo_folder_name(repo_id=self._model, repo_type="model")
        return Path(constants.HF_HUB_CACHE) / folder / "blobs"


class _Watch:
    """Reports how many bytes have arrived, by looking at the files.

    The hub's library has several ways of downloading, and its progress bars change
    with each version; what lies on the disk does not.
    """

    def __init__(self, blobs: Path, needed: tuple[int, int], report: Report) -> None:
        self._blobs = blobs
        self._there, self._total = needed
        self._report = report
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, name="download-progress", daemon=True)

    def __enter__(self) -> None:
        # half of an earlier attempt counts as arrived
        self._other = sum(size for name, size in self._files() if not name.endswith(".incomplete"))
        self._tell()
        self._thread.start()

    def __exit__(self, failed: type[BaseException] | None, *_: object) -> None:
        self._done.set()
        self._thread.join()
        if failed is None:
            self._report(self._progress(self._total))

    def _run(self) -> None:
        while not self._done.wait(_POLL_SECONDS):
            self._tell()

    def _tell(self) -> None:
        arrived = sum(size for _, size in self._files()) - self._other
        self._report(self._progress(min(self._there + arrived, self._total)))

    def _files(self) -> Iterator[tuple[str, int]]:
        with contextlib.suppress(FileNotFoundError):
            for path in self._blobs.iterdir():
                with contextlib.suppress(FileNotFoundError):  # renamed since
                    yield path.name, path.stat().st_size

    def _progress(self, done: int) -> Progress:
        return Progress(stage="download", done=done, total=self._total, unit="bytes")


def _wanted(
    names: Sequence[str], model: str, patterns: tuple[str, ...] = ()
) -> tuple[list[str], bool]:
    refuse_other_formats(names, model)
    small = [
        name for name in names if any(fnmatch(name, pattern) for pattern in _SMALL_FILES + patterns)
    ]
    # what lies in folders (original/, onnx/) is the same model again in another form
    small = [name for name in small if "/" not in name or name.startswith("chat_templates/")]
    if SINGLE in names:
        return [*small, SINGLE], False
    return small, True


def _cached(model: str, revision: str | None, why: str) -> Source:
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(model, "config.json", revision=revision or "main")
    if not isinstance(found, str):
        at = f" at revision {revision}" if revision else ""
        raise HubUnreachable(
            f"{model}{at} is not in the hub's cache on this machine, and {why}. "
            "Connect once to download it, or give the path of a local folder."
        )
    folder = Path(found).parent
    shards = [SINGLE] if not (folder / INDEX).exists() else shard_names(read_json(folder / INDEX))
    if absent := [name for name in shards if not (folder / name).exists()]:
        raise HubUnreachable(
            f"Only a part of {model} is in the hub's cache ({absent[0]} is missing), and {why}. "
            "Connect to download the rest."
        )
    return Source(folder, folder.name)


@contextlib.contextmanager
def _explained(model: str, revision: str | None) -> Iterator[None]:
    """Say in our words what the hub's library raises."""
    from huggingface_hub import errors

    try:
        yield
    except errors.HFValidationError:
        raise ModelNotFound(f"{model!r} is neither a folder here nor an id on the hub.") from None
    except errors.GatedRepoError:
        raise ModelGated(
            f"{model} is gated: accept its licence at https://huggingface.co/{model} and set "
            "HF_TOKEN to a token of that account."
        ) from None
    except errors.RevisionNotFoundError:
        raise ModelNotFound(f"{model} has no revision {revision!r} on the hub.") from None
    except errors.RepositoryNotFoundError:
        raise ModelNotFound(
            f"There is no folder {model} here, and no such model on the hub that this account may "
            "see. If it is private, set HF_TOKEN."
        ) from None
    except errors.HfHubHTTPError as error:
        raise HubUnreachable(
            f"The hub answered {error.response.status_code} for {model}. Try again later."
        ) from None
    except OSError as error:
        raise StartFailed(f"{model} could not be stored: {error.strerror or error}.") from None


def _is_connection(error: Exception) -> bool:
    from huggingface_hub import errors

    # the hub's library moved from httpx to httpx2; either way this is what its errors come from
    transport = errors.HfHubHTTPError.__bases__[0]
    if isinstance(error, errors.HfHubHTTPError):
        return error.response.status_code >= 500
    return isinstance(error, (transport, errors.LocalEntryNotFoundError, ConnectionError))


def _disk_free(folder: Path) -> int:
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free
