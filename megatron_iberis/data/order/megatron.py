"""Megatron's own order of samples: what megatron-core's `GPTDataset` gives for the same file, seed and length of run.

The documents of all epochs are shuffled and joined, samples cut across their borders, and shuffled once more
(csrc/order/megatron_order.h). An epoch of which less than 80 % is needed is shuffled by itself and comes last. As the
index grows with the run, it is kept in a file (`stored_index`). What is called a document here is a sequence of the
file, as in megatron-core; files made by data_tools/preprocess.py have one a document.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from megatron_iberis import _C
from megatron_iberis.data.order.concatenated import too_few
from megatron_iberis.data.order.stored_index import Arrays, stored_index
from megatron_iberis.data.token_files.reader import TokenFile
from megatron_iberis.errors import InputError

_OWN_SHUFFLE_BELOW = 0.80


@dataclass(frozen=True)
class MegatronOrder:
    """Samples of T + 1 tokens (T = sequence_length), neighbours in `begins` sharing one.

    documents: int32 [D], numbers of documents, one after the other; begins: [S + 1, 2], where each sample begins, as
    the place among `documents` and the token in that one; shuffle: [S], which of these is sample number s.
    """

    sequence_length: int
    documents: npt.NDArray[np.int32]
    begins: npt.NDArray[Any]
    shuffle: npt.NDArray[Any]

    def pieces(self, sample: int) -> list[tuple[int, slice]]:
        """What sample number `sample` is made of: documents, and which of their tokens.

        Raises InputError beyond the last sample that the order was made for.
        """
        if not 0 <= sample < len(self.shuffle):
            raise InputError(
                f"Megatron's order was made for {len(self.shuffle):,} samples, and number {sample:,} was asked for: "
                "make it for as many as the run needs."
            )
        row = int(self.shuffle[sample])
        (first, begin), (last, end) = self.begins[row : row + 2].tolist()
        numbers = self.documents[first : last + 1].tolist()
        starts = [begin] + [0] * (last - first)
        ends = [None] * (last - first) + [end + 1]  # the sample ends with the token that the next one begins with
        return [(number, slice(*both)) for number, *both in zip(numbers, starts, ends, strict=True)]


def open_megatron_order(file: TokenFile, sequence_length: int, seed: int, num_samples: int) -> MegatronOrder:
    """The order of at least `num_samples` samples, made if this is the first time.

    Raises InputError when the file is too short for a sample, or the order can be written nowhere.
    """
    if file.num_tokens <= sequence_length:
        raise InputError(too_few(file.num_tokens, sequence_length))

    def make() -> Arrays:
        return _make(file, sequence_length, seed, num_samples)

    found = stored_index(file, f"megatron-{sequence_length}-{seed}-{num_samples}", make)
    return MegatronOrder(sequence_length, **found)


def _make(file: TokenFile, length: int, seed: int, num_samples: int) -> Arrays:
    epochs = -(-(num_samples * length + 1) // file.num_tokens)
    before_last = ((epochs - 1) * file.num_tokens - 1) // length if epochs > 1 else 0
    last_by_itself = epochs > 1 and num_samples - before_last < int(
        _OWN_SHUFFLE_BELOW * ((file.num_tokens - 1) // length)
    )
    random = np.random.RandomState(seed)  # not a Generator: another one would shuffle otherwise than Megatron does
    every = np.arange(file.num_sequences, dtype=np.int32)
    parts = [np.tile(every, epochs - 1), every.copy()] if last_by_itself else [np.tile(every, epochs)]
    for part in parts:
        random.shuffle(part)
    documents = np.concatenate(parts)
    begins = _C.megatron_sample_index(np.ascontiguousarray(file.lengths), documents, length)
    total = len(begins) - 1
    borders = [0, before_last, total] if last_by_itself else [0, total]
    dtype = np.uint32 if total < np.iinfo(np.uint32).max - 1 else np.int64
    parts = [np.arange(*both, dtype=dtype) for both in pairwise(borders)]
    for part in parts:
        random.shuffle(part)
    return {"begins": begins, "documents": documents, "shuffle": np.concatenate(parts)}
