"""Where documents lie in the rows of a batch, for mixers that are not to look across their borders.

It goes to the layers by way of `packed_seq_params`, megatron-core's name for such things. What lies at the border
needs no other care: rotary embedding knows distances only, and norms and MLPs know one token only.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch


@dataclass(frozen=True)
class Documents:
    """The documents in whole rows, and the places of one chunk's tokens in them."""

    rows: tuple[tuple[int, ...], ...]
    """The lengths of the documents of each of the B rows, T in sum."""
    positions: torch.Tensor
    """Each token's place in its document, int64 [t, B], of this rank's chunk; on the model's device."""

    @classmethod
    def of(cls, positions: torch.Tensor, chunk: slice, device: torch.device) -> Documents:
        """positions: each token's place in its document, int64 [B, T], best on the CPU; a row begins at any place."""
        rows = tuple(_lengths((row == 0).tolist()) for row in positions)
        return cls(rows, positions[:, chunk].t().to(device))

    def until(self, end: int) -> list[list[int]]:
        """The lengths in the first `end` tokens of each row."""
        cut = []
        for row in self.rows:
            left, lengths = end, list[int]()
            for length in row:
                lengths.append(min(length, left))
                left -= lengths[-1]
                if not left:
                    break
            cut.append(lengths)
        return cut


def _lengths(begins: list[bool]) -> tuple[int, ...]:
    starts = [0, *(t for t, is_first in enumerate(begins) if is_first and t), len(begins)]
    return tuple(end - start for start, end in pairwise(starts))
