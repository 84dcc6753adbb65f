"""Token ids to text as it arrives: never half a character, never part of a stop text.

Pure Python. Any tokenizer will do that can decode a run of ids: text is the
difference between two decodes of a short window, held back while it ends inside
a character. Where a text is known to be the bytes of its tokens, those are put
one after the other, which costs a tenth.
"""

from __future__ import annotations

from codecs import utf_8_decode
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol

from llmkernel.worker.pieces import Pieces


class Tokenizer(Protocol):
    """What the worker needs of a tokenizer. All methods may be called from any thread."""

    @property
    def eos_token_ids(self) -> frozenset[int]:
        """Ids that end an answer."""

    @property
    def special_ids(self) -> frozenset[int]:
        """Ids that `decode` leaves out when it skips special tokens."""

    @property
    def pieces(self) -> Pieces | None:
        """The bytes of each token, where `decode` puts them one after the other; else None."""

    @property
    def vocab_size(self) -> int:
        """One above the largest id."""

    @property
    def has_chat_template(self) -> bool:
        """Whether `render_chat` works."""

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        """Token ids of `text`."""

    def decode(self, token_ids: Sequence[int], skip_special_tokens: bool) -> str:
        """Text of `token_ids`; bytes that are no UTF-8 become U+FFFD."""

    def token_text(self, token_id: int) -> str:
        """Text of one token by itself, as shown beside its log-probability."""

    def render_chat(self, messages: Sequence[Mapping[str, str]], continue_final: bool) -> str:
        """The prompt for a conversation of {"role", "content"} turns.

        It ends where the assistant's answer begins, or inside the last turn with
        `continue_final`. Raises InvalidRequest where the template refuses.
        """


class Piece(NamedTuple):
    """What some tokens added to a stream: `text` may be shown now.

    `stop` is the stop text that was found, if any; it and all after it is left
    out. `used` counts the tokens that were taken, the one completing the stop
    included.
    """

    text: str
    stop: str | None
    used: int


REPLACEMENT = "\ufffd"
_WINDOW = 12
_RESYNC = 8
"""Tokens that surely hold the last four bytes, where a window must be cut inside a character."""


class Detokenizer(Protocol):
    """Text of one growing sequence.

    However the ids are cut into pushes, the texts returned add up to
    `tokenizer.decode` of all of them. At most one character is held back: one whose
    bytes may still be coming.
    """

    def push(self, token_ids: Iterable[int]) -> str:
        """Take ids, in order; return the text that is certain now."""

    def flush(self) -> str:
        """The rest: what was held back is returned as it is. Call once, at the end."""


def detokenizer(tokenizer: Tokenizer, skip_special_tokens: bool = True) -> Detokenizer:
    """The cheapest that is right for the tokenizer."""
    skipped = tokenizer.special_ids if skip_special_tokens else frozenset()
    if tokenizer.pieces is not None:
        return PieceDetokenizer(tokenizer.pieces, skipped)
    return WindowDetokenizer(tokenizer, skipped)


class PieceDetokenizer:
    """Bytes of tokens in, whole characters out. Bytes that are no UTF-8 become U+FFFD."""

    __slots__ = ("_held", "_pieces", "_skipped", "_strips")

    def __init__(self, pieces: Pieces, skipped: frozenset[int]) -> None:
        self._pieces = pieces
        self._skipped = skipped
        self._held = b""
        self._strips = pieces.strips

    def push(self, token_ids: Iterable[int]) -> str:
        """Take ids, in order; return the text that is certain now."""
        pieces, skipped = self._pieces, self._skipped
        data = self._held + b"".join([pieces[token] for token in token_ids if token not in skipped])
        if self._strips and data:
            self._strips = False
            data = data.removeprefix(b" ")
        text, used = utf_8_decode(data, "replace")
        self._held = data[used:]
        return text

    def flush(self) -> str:
        """The rest: what was held back is returned as it is. Call once, at the end."""
        held, self._held = self._held, b""
        return held.decode(errors="replace")


class WindowDetokenizer:
    """The difference between two decodes of the last few tokens.

    Held back is a final U+FFFD. Requires of the tokenizer that an unfinished character at
    the end decodes to one U+FFFD, as UTF-8 decoding with replacement has it.
    """

    def __init__(self, tokenizer: Tokenizer, skipped: frozenset[int]) -> None:
        self._decode = tokenizer.decode
        self._skipped = skipped
        self._window: list[int] = []
        self._shown = 0  # characters of the window's text that were returned

    def push(self, token_ids: Iterable[int]) -> str:
        """Take ids, in order; return the text that is certain now."""
        fresh = [token for token in token_ids if token not in self._skipped]
        if not fresh:
            return ""
        self._window += fresh
        text = self._text()
        certain = len(text) - text.endswith(REPLACEMENT)
        new = text[self._shown : certain]
        self._shown = max(self._shown, certain)
        if len(self._window) > _WINDOW:
            self._shorten(held=certain < len(text))
        return new

    def flush(self) -> str:
        """The rest: what was held back is returned as it is. Call once, at the end."""
        text = self._text()
        new = text[self._shown :]
        self._shown = len(text)
        return new

    def _text(self) -> str:
        return self._decode(self._window, skip_special_tokens=False)

    def _shorten(self, held: bool) -> None:
        # one token stays as left neighbour: whether a space comes first depends on it
        self._window = self._window[-_RESYNC if held else -1 :]
        self._shown = len(self._text()) - held


class StopSearch:
    """Finds stop texts in a stream of text cut anywhere.

    The stop that is complete first ends the stream, as for a reader who sees one
    character at a time; of several that end on the same character the longest.
    Only a tail that may still become a stop is held back.
    """

    __slots__ = ("_held", "_stops")

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(dict.fromkeys(stops))
        self._held = ""

    def push(self, text: str) -> tuple[str, str | None]:
        """Take text; return what is certain now and the stop that was found, if any.

        After a stop nothing more may be pushed.
        """
        if not self._stops:
            return text, None
        text = self._held + text
        ends = ((at + len(stop), at, stop) for stop in self._stops if (at := text.find(stop)) >= 0)
        found = min(ends, default=None)
        if found:
            self._held = ""
            return text[: found[1]], found[2]
        keep = self._start_of_stop(text)
        self._held = text[keep:]
        return text[:keep], None

    def flush(self) -> str:
        """The tail that turned out to be no stop."""
        held, self._held = self._held, ""
        return held

    def _start_of_stop(self, text: str) -> int:
        start = len(text)
        for stop in self._stops:
            at = text.find(stop[0], max(0, len(text) - len(stop) + 1), start)
            while at >= 0 and not stop.startswith(text[at:]):
                at = text.find(stop[0], at + 1, start)
            start = at if at >= 0 else start
        return start


class TextStream:
    """One answer's text: detokenizer and stop search together."""

    __slots__ = ("_one_by_one", "_search", "detokenizer", "stop")

    def __init__(
        self, tokenizer: Tokenizer, stops: Sequence[str] = (), skip_special_tokens: bool = True
    ) -> None:
        self.detokenizer = detokenizer(tokenizer, skip_special_tokens)
        self._search = StopSearch(stops)
        self._one_by_one = bool(stops)
        self.stop: str | None = None

    def push(self, token_ids: Sequence[int]) -> Piece:
        """Take the next ids. Once a stop was found they are left unused."""
        if not self._one_by_one:
            return Piece(self.detokenizer.push(token_ids), None, len(token_ids))
        texts = []
        used = 0
        for token in token_ids:
            if self.stop is not None:
                break
            text, self.stop = self._search.push(self.detokenizer.push((token,)))
            texts.append(text)
            used += 1
        return Piece("".join(texts), self.stop, used)

    def flush(self) -> Piece:
        """The rest, when no more ids come; a stop may still complete in it."""
        if self.stop is not None:
            return Piece("", self.stop, 0)
        text, self.stop = self._search.push(self.detokenizer.flush())
        if self.stop is None:
            text += self._search.flush()
        return Piece(text, self.stop, 0)
