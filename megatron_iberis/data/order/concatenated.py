"""Which tokens make up training sample number s: a formula, not an index (it stands in csrc/order/samples.h).

* A sample is T + 1 tokens of the file, which is taken as a ring: the first T are inputs, the last T targets.
* In an epoch every token is a target once, but for N mod T tokens, which are others in the next epoch.
* The order depends on the seed, the number of tokens and the sequence length alone, on every machine.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from megatron_iberis import _C
from megatron_iberis.errors import InputError


def too_few(num_tokens: int, sequence_length: int) -> str:
    """What is wrong with a token file that is shorter than one sample."""
    return (
        f"the token file holds {num_tokens:,} tokens, too few for one sequence of {sequence_length:,} and the token "
        "after it: lower --model.sequence_length or add text."
    )


@dataclass(frozen=True)
class SampleOrder:
    """The samples of a file of `num_tokens` tokens (N), cut into sequences of `sequence_length` (T).

    With `shuffle` each epoch has its own order and its own borders between samples; without, the samples come in
    the order of the file. Raises InputError when the file is too short for one sequence and the token after it.
    """

    num_tokens: int
    sequence_length: int
    seed: int
    shuffle: bool

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**64:
            raise InputError(f"the seed {self.seed} is not in 0 .. 2^64 - 1: choose a smaller one.")
        if self.num_tokens <= self.sequence_length:
            raise InputError(too_few(self.num_tokens, self.sequence_length))
        self.offsets(0, 0)  # refuses impossible lengths

    @property
    def samples_per_epoch(self) -> int:
        return self.num_tokens // self.sequence_length

    def offsets(self, first: int, count: int) -> npt.NDArray[np.int64]:
        """Where the samples first .. first + count - 1 begin, in tokens, [count].

        The numbers run on through the epochs: e * samples_per_epoch is the first one of epoch e.
        """
        return _C.sample_offsets(first, count, self.num_tokens, self.sequence_length, self.seed, self.shuffle)
