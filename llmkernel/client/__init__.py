"""The client: one core of coroutines, a blocking and an awaiting face, and the way to a worker."""

from llmkernel.client.faces import AsyncClient, Client

__all__ = ["AsyncClient", "Client"]
