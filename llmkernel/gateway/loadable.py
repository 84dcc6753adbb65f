"""The models that a request may have loaded by naming them."""

from __future__ import annotations

from collections.abc import Iterator

from llmkernel.config import default_name


class Loadable:
    """Those of the operator's list, and those that the gateway ran and let go of again.

    Whoever gave the gateway a model to serve wants it served after an unload, too.
    """

    def __init__(self, listed: tuple[str, ...]) -> None:
        self._listed = listed
        self._released: dict[str, None] = {}

    def release(self, model: str) -> None:
        """The gateway stops it, and may start it again."""
        if model not in self._listed:
            self._released[model] = None

    def runs(self, model: str) -> None:
        """It runs, or still does: whoever ends it from now on decides what becomes of it."""
        self._released.pop(model, None)

    def find(self, asked: str) -> str | None:
        """The one that is asked for by its id, or by the name that its worker gets."""
        by_id = (model for model in self if model == asked)
        by_name = (model for model in self if default_name(model) == asked)
        return next(by_id, None) or next(by_name, None)

    def __iter__(self) -> Iterator[str]:
        """The one that a request means which names none comes first."""
        yield from self._released
        yield from self._listed
