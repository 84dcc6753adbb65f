"""`stream_options` of chat completions and completions."""

from __future__ import annotations

import msgspec

from llmkernel.errors import InvalidRequest


class StreamOptions(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What a stream shall hold beside the answer."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None
    """Padding against an eavesdropper on the length of events; there is none here."""


def includes_usage(options: StreamOptions | None, *, stream: bool) -> bool:
    """Whether the usage comes at the end. Raises InvalidRequest without a stream."""
    if options is None:
        return False
    if not stream:
        raise InvalidRequest(
            "stream_options is for streams: set stream, or leave it out.", field="stream_options"
        )
    return bool(options.include_usage)
