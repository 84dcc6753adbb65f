"""Words of eight 4-bit numbers, as files hold them."""

from __future__ import annotations

import torch
from torch import Tensor


def nibbles(words: Tensor) -> Tensor:
    """`words` int32 [...] as uint8 [..., 8], the lowest four bits first."""
    octets = words.contiguous().view(torch.uint8)  # files and machines here are little-endian
    halves = torch.stack((octets & 15, octets >> 4), -1)
    return halves.view(*words.shape, 8)
