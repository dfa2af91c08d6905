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
    def of(cls, cu_seqlens: torch.Tensor, rows: int, chunk: slice, device: torch.device) -> Documents:
        """cu_seqlens: the documents' borders in the rows strung together, from 0 to B * T, best on the CPU.

        rows: B. chunk: of the T tokens of a row, those of this rank. Every row must begin a document; the documents
        of rows that do not are cut there.
        """
        total = int(cu_seqlens[-1])
        ends = torch.arange(0, total + 1, total // rows, device=cu_seqlens.device)
        borders = torch.cat((cu_seqlens.long(), ends)).unique()
        lengths, firsts = borders.diff(), torch.searchsorted(borders, ends).tolist()
        positions = torch.arange(total, device=borders.device) - borders[:-1].repeat_interleave(lengths)
        listed = lengths.tolist()
        each = tuple(tuple(listed[first:end]) for first, end in pairwise(firsts))
        return cls(each, positions.view(rows, -1)[:, chunk].t().to(device))

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
