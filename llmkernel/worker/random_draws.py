"""Random numbers that depend on what is drawn and on nothing else.

A draw is named by (seed, answer index, position, token id). The first three make
a 64-bit key by SplitMix64 (Steele, Lea and Flood 2014); the key and the token id
are hashed to 31 bits by a multiply-xorshift mixer (the constants are those of
Wellons' search for low bias). No state is kept, so a draw is the same in any
batch, after a preemption and on any device.
"""

from __future__ import annotations

import functools

import torch

_MASK64 = 2**64 - 1
_GOLDEN64 = 0x9E3779B97F4A7C15
# a little under 2^-31, so that no integer is scaled to 1, where log1p(-x) has no value
_SCALE = 2.0**-31 * (1 - 2.0**-23)


def draw_key(seed: int, answer: int, position: int) -> tuple[int, int]:
    """Two int32 words that name one draw of one answer; any integer is a seed."""
    key = _split_mix(_stream(seed, answer) ^ position)
    return _int32(key), _int32(key >> 32)


def exponential_noise(token_ids: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
    """Exponential(1) variates, float32 [R, V], for int32 `token_ids` [V] and `keys` [R, 2].

    The integers are equal on every device; only the last bit of the logarithm may
    differ. Small values keep their relative precision, because the smallest noise
    decides a draw.
    """
    bits = token_ids * _int32(0x9E3779B1) + keys[:, :1]
    # torch shifts int32 arithmetically, so each of these maps two integers to one
    # below 2^31: that costs one bit of 32 and saves three masks
    bits ^= bits >> 16
    bits *= _int32(0x7FEB352D)
    bits ^= keys[:, 1:]
    bits ^= bits >> 15
    bits *= _int32(0x846CA68B)
    bits ^= bits >> 16
    return bits.to(torch.float32).mul_(-_SCALE).sub_(2.0**-32).log1p_().neg_()


@functools.lru_cache(maxsize=1024)
def _stream(seed: int, answer: int) -> int:
    return _split_mix(_split_mix(seed) ^ answer)


def _split_mix(value: int) -> int:
    value = (value + _GOLDEN64) & _MASK64
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK64
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK64
    return value ^ (value >> 31)


def _int32(value: int) -> int:
    value &= 0xFFFFFFFF
    return value - 2**32 if value >= 2**31 else value
