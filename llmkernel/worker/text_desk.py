"""Tokenize and Detokenize: text work that needs no engine, done in threads."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial

from llmkernel import protocol
from llmkernel.errors import InvalidRequest, LLMKernelError, Overloaded
from llmkernel.worker import admission
from llmkernel.worker.peers import Peer
from llmkernel.worker.text import Tokenizer
from llmkernel.worker.text_threads import TextThreads
from llmkernel.worker.traces import where

MAX_WAITING = 256
MAX_WAITING_BYTES = 64 * 2**20
"""Of questions that wait, in all; a list of token ids takes many times that as Python's numbers."""
_log = logging.getLogger(__name__)

Question = protocol.Tokenize | protocol.Detokenize
Reply = protocol.Tokens | protocol.Text
Send = Callable[[Peer, protocol.WorkerMessage], None]


class TextDesk:
    """Answers questions about text; at most MAX_WAITING at a time, of MAX_WAITING_BYTES."""

    def __init__(
        self, tokenizer: Tokenizer, info: protocol.ModelInfo, *, threads: TextThreads, send: Send
    ) -> None:
        self._tokenizer = tokenizer
        self._info = info
        self._threads = threads
        self._send = send
        self._waiting = 0
        self._waiting_bytes = 0
        self._works: dict[Peer, set[asyncio.Future[Reply]]] = {}

    @property
    def busy(self) -> bool:
        """Whether any question is open."""
        return self._waiting > 0

    def ask(self, peer: Peer, question: Question, size: int) -> None:
        """Start on a question of `size` bytes, or raise why not."""
        if self._waiting >= MAX_WAITING or self._waiting_bytes + size > MAX_WAITING_BYTES:
            raise Overloaded(f"{self._waiting} texts wait already.", waiting=self._waiting)
        self._check(question)
        self._waiting += 1
        self._waiting_bytes += size
        work = self._threads.run(peer, partial(self._answer, question))
        self._works.setdefault(peer, set()).add(work)
        work.add_done_callback(partial(self._done, peer, question.id, size))

    def drop(self, peer: Peer) -> None:
        """Its client is gone: what has not begun of its questions is not worked on."""
        for work in list(self._works.get(peer, ())):
            work.cancel()

    def _check(self, question: Question) -> None:
        if isinstance(question, protocol.Detokenize):
            return  # millions of ids are looked at in a thread
        if question.messages is not None:
            if question.text:
                raise InvalidRequest("Give a text or messages, not both.", field="messages")
            admission.check_chat(question.messages, self._info)
        else:
            admission.check_text(question.text)

    def _answer(self, question: Question) -> Reply:
        tokenizer = self._tokenizer
        if isinstance(question, protocol.Detokenize):
            admission.check_token_ids(question.token_ids, tokenizer.vocab_size)
            text = tokenizer.decode(question.token_ids, question.skip_special_tokens)
            return protocol.Text(id=question.id, text=text)
        ids = list(admission.encode(question, tokenizer))
        texts = [tokenizer.token_text(token_id) for token_id in ids] if question.texts else []
        return protocol.Tokens(id=question.id, token_ids=ids, texts=texts)

    def _done(self, peer: Peer, request_id: int, size: int, work: asyncio.Future[Reply]) -> None:
        self._waiting -= 1
        self._waiting_bytes -= size
        self._works[peer].discard(work)
        if not self._works[peer]:
            del self._works[peer]
        if work.cancelled():
            return
        try:
            self._send(peer, work.result())
        except LLMKernelError as error:
            self._refuse(peer, request_id, error)
        except Exception as error:  # noqa: BLE001 - of any tokenizer; only this question fails
            _log.error("a text question failed: %s", where(error))
            broke = InvalidRequest("The tokenizer failed on this; the worker's log says how.")
            self._refuse(peer, request_id, broke)

    def _refuse(self, peer: Peer, request_id: int, error: LLMKernelError) -> None:
        self._send(peer, protocol.Refused(id=request_id, **protocol.wire_error(error)))
