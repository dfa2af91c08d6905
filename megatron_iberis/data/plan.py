"""Which sample numbers a rank sees at a step: a function of the step alone, so the place in the data is the step."""

from __future__ import annotations

from dataclasses import dataclass

from megatron_iberis.errors import InputError


@dataclass(frozen=True)
class BatchPlan:
    """How the samples of a step are shared out among ranks and micro-batches.

    Step s uses the samples s * G .. (s + 1) * G - 1, where G is `global_batch` (rows, not tokens). Micro-batch a
    of data-parallel rank r of R takes `micro_batch` of them (b), from s * G + (a * R + r) * b on.
    """

    global_batch: int
    micro_batch: int
    rank: int
    ranks: int

    def __post_init__(self) -> None:
        if min(self.global_batch, self.micro_batch, self.ranks) < 1 or not 0 <= self.rank < self.ranks:
            raise ValueError(f"{self} is not a plan: give sizes of 1 or more and a rank below the number of ranks.")
        if self.global_batch % (self.micro_batch * self.ranks):
            raise InputError(
                f"a batch of {self.global_batch} sequences cannot be split over {self.ranks} data-parallel ranks of "
                f"{self.micro_batch} sequences at a time: make it a multiple of {self.micro_batch * self.ranks}."
            )

    @property
    def accumulation(self) -> int:
        """Micro-batches that each rank goes through in a step."""
        return self.global_batch // (self.micro_batch * self.ranks)

    def first_sample(self, step: int, index: int) -> int:
        """The first of the `micro_batch` sample numbers of this rank's micro-batch `index` in a step."""
        return step * self.global_batch + (index * self.ranks + self.rank) * self.micro_batch
