"""Names of models as Ollama's clients write them."""

from __future__ import annotations

from llmkernel.errors import InvalidRequest
from llmkernel.gateway.models import Models

_TAG = ":latest"


def named(model: str | None, name: str | None) -> str:
    """The model of a request that may call it by the older name of the field.

    Raises InvalidRequest where there is none.
    """
    found = model or name
    if not found:
        raise InvalidRequest("model is missing: say which one.", field="model")
    return found


def plain(models: Models, name: str) -> str:
    """The name that the gateway knows: clients may put the tag on that Ollama has by default."""
    bare = name.removesuffix(_TAG)
    known = name in models.names() or models.serving(name)
    return name if known else bare
