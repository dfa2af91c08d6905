"""Whole documents packed into rows (best fit, csrc/order/best_fit.h); the packing is kept (`stored_index`)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from megatron_iberis import _C
from megatron_iberis.data.order.stored_index import Arrays, stored_index
from megatron_iberis.data.token_files.reader import TokenFile


@dataclass(frozen=True)
class PackedRows:
    """Rows of `row_tokens` tokens, and which documents lie in each, one after the other from its beginning.

    The last document of a row may be cut where it is longer than a row; what a row lacks is padding.
    """

    row_tokens: int
    cropped: int
    """Tokens of long documents that are in no row."""
    padded: int
    """Tokens that the rows lack."""
    starts: npt.NDArray[np.int64]
    documents: npt.NDArray[np.uint32]

    @property
    def num_rows(self) -> int:
        return len(self.starts) - 1

    @property
    def cropped_share(self) -> float:
        """Of the tokens of the file, those that are in no row."""
        return self.cropped / (self.num_rows * self.row_tokens - self.padded + self.cropped)

    @property
    def padded_share(self) -> float:
        """Of the places in the rows, those that are empty."""
        return self.padded / (self.num_rows * self.row_tokens)

    def documents_of(self, row: int) -> list[int]:
        """The numbers of the documents in a row."""
        documents: list[int] = self.documents[self.starts[row] : self.starts[row + 1]].tolist()
        return documents


def open_packing(file: TokenFile, sequence_length: int) -> PackedRows:
    """The documents of `file` in rows of sequence_length + 1 tokens, made if this is the first time.

    Raises InputError when the index is damaged, or when the packing can be written nowhere.
    """
    row_tokens = sequence_length + 1

    def pack() -> Arrays:
        starts, documents, cropped, padded = _C.best_fit(file.index, row_tokens)
        return {"starts": starts, "counts": np.array([cropped, padded], np.int64), "documents": documents}

    found = stored_index(file, f"best_fit-{row_tokens}", pack)
    cropped, padded = found["counts"].tolist()
    return PackedRows(row_tokens, cropped, padded, found["starts"], found["documents"])
