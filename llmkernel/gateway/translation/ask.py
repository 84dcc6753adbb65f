"""A question for a worker, as every dialect's request ends up."""

from __future__ import annotations

import msgspec

from llmkernel.client import AsyncClient
from llmkernel.client.generation import Generation
from llmkernel.client.streams import AsyncStream
from llmkernel.params import SamplingParams
from llmkernel.protocol import ChatMessage


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """A prompt or a conversation, and how to answer it."""

    params: SamplingParams
    prompt: str | list[int] = ""
    """Where there is no conversation: text, tokenised as it is, or token ids."""
    messages: list[ChatMessage] | None = None
    continue_final_message: bool = False
    """Go on inside the last turn, which is the assistant's."""

    @property
    def characters(self) -> int:
        """How long the text is that was asked; 0 where it came as token ids."""
        if self.messages is None:
            return len(self.prompt) if isinstance(self.prompt, str) else 0
        return sum(len(turn.content) for turn in self.messages)

    async def whole(self, client: AsyncClient) -> Generation:
        """The whole answer."""
        if self.messages is None:
            return await client.generate(self.prompt, self.params)
        return await client.chat(
            self.messages, self.params, continue_final_message=self.continue_final_message
        )

    def stream(self, client: AsyncClient) -> AsyncStream:
        """The answer, piece by piece."""
        if self.messages is None:
            return client.stream(self.prompt, self.params)
        return client.stream_chat(
            self.messages, self.params, continue_final_message=self.continue_final_message
        )


def conversation(messages: list[ChatMessage], params: SamplingParams) -> Ask:
    """The question for the next turn. A last turn of the assistant's is gone on with."""
    goes_on = bool(messages) and messages[-1].role == "assistant"
    return Ask(params=params, messages=messages, continue_final_message=goes_on)
