"""What one notebook has chosen: the worker it talks to and the defaults of its generations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from llmkernel import connection
from llmkernel.connection import Connection
from llmkernel.errors import WorkerNotFound
from llmkernel.notebook.chats import Chat

if TYPE_CHECKING:
    from llmkernel.client import Client
    from llmkernel.notebook.watching import Following


class Session:
    """The state of the magics in one shell.

    `worker` is the name chosen by `%llm use` or by the last `%llm start`; None takes the
    only one that runs. `defaults` holds values of options of `%%generate`, by name, and
    `chats` the conversations of `%%chat`.
    """

    def __init__(self, shell: Any) -> None:
        self.shell = shell
        self.worker: str | None = None
        self.defaults: dict[str, Any] = {}
        self.chats: dict[str, Chat] = {}
        self._clients: dict[str, Client] = {}
        self._cards: dict[str, Following] = {}

    def find(self, name: str | None = None) -> Connection:
        """The worker `name`, else the chosen one, else the only one that runs.

        Raises WorkerNotFound that names what runs.
        """
        try:
            return connection.find(name or self.worker)
        except WorkerNotFound as error:
            several = len(error.data.get("workers", [])) > 1
            if several and not (name or self.worker):
                error.message += " Choose one with `%llm use NAME`, or with -m NAME here."
                error.args = (error.message,)
            raise

    def client(self, name: str | None = None) -> Client:
        """A client of the worker that `find` finds; one is kept for each name.

        It finds a worker that was started again by itself.
        """
        from llmkernel.client import Client

        worker = self.find(name)
        if worker.name not in self._clients:
            self._clients[worker.name] = Client(worker)
        return self._clients[worker.name]

    def follow(self, worker: Connection) -> None:
        """Show the card of a worker, up to date for a while; an earlier one of it stays as it is."""
        from llmkernel.notebook.watching import Following

        if worker.name in self._cards:
            self._cards[worker.name].end()
        self._cards[worker.name] = Following(self.shell, worker)

    def close(self) -> None:
        """End the connections, not the workers."""
        for card in self._cards.values():
            card.end()
        self._cards.clear()
        for client in self._clients.values():
            client.close()
        self._clients.clear()

    def variable(self, name: str, value: Any) -> None:
        """Put a value into the notebook's namespace."""
        self.shell.push({name: value})


with_session = click.make_pass_decorator(Session)
"""Gives a command of `%llm` the session that it was called in."""
