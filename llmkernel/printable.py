"""Text of a model, a checkpoint or a stranger, with nothing in it that a terminal would obey."""

from __future__ import annotations

_BIDI = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
_SHOWN = {code: 0x2400 + code for code in range(0x20) if chr(code) not in "\n\t"}
_SHOWN |= {0x7F: 0x2421} | dict.fromkeys(range(0x80, 0xA0), 0xFFFD)
_SHOWN |= dict.fromkeys(map(ord, _BIDI), 0xFFFD)
_VISIBLE = str.maketrans({**_SHOWN, ord("\r"): None})


def printable(text: str) -> str:
    """`text` with everything a terminal would obey made visible instead.

    Control characters become their pictures (ESC is ␛), C1 codes and direction marks U+FFFD;
    a carriage return is dropped, since alone it would overwrite the line.
    """
    return text.translate(_VISIBLE)
