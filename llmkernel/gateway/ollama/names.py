"""Names of models as Ollama's clients write them."""

from __future__ import annotations

from llmkernel.gateway.models import Models

_TAG = ":latest"


def plain(models: Models, name: str) -> str:
    """The name that the gateway knows: clients may put the tag on that Ollama has by default."""
    bare = name.removesuffix(_TAG)
    known = name in models.names() or models.serving(name)
    return name if known else bare
