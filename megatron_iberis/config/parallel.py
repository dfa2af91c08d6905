"""Section [parallel]: how the run is spread over processes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from megatron_iberis.config.checks import Above, AtLeast, AtMost, divisors, require
from megatron_iberis.config.model import ModelConfig

_REPLICAS = 16
"""Ranks without ZeRO, at the most, that a matrix's owner can send its update to: at 512 a d20 would send 6.7 GB."""


@dataclass(frozen=True)
class ParallelConfig:
    """How the run is spread over processes. Data parallelism takes what the other sizes leave."""

    tp: Annotated[int, AtLeast(1)] = 1
    """Tensor-parallel size: every matrix is split over so many ranks; keep it inside a node."""
    sequence_parallel: bool = False
    """Split norms and residuals by tokens over the tensor-parallel ranks too (saves memory)."""
    cp: Annotated[int, AtLeast(1)] = 1
    """Context-parallel size: every sequence is split over so many ranks, for long contexts."""
    recompute: bool = False
    """Keep only each layer's input for the backward pass and run the layer again: less memory, a third more work."""
    zero_stage: Literal[0, 1, 2, 3] = 1
    """DeepSpeed ZeRO: 0 shards nothing, 1 optimizer state, 2 gradients too, 3 parameters too."""
    timeout_minutes: Annotated[float, Above(0), AtMost(100_000)] = 30.0
    """Longest wait for another rank in a collective before the run is ended."""

    def check(self, model: ModelConfig) -> None:
        """Raises InputError when the model cannot be split this way."""
        tp, length = self.tp, model.sequence_length
        require(
            model.heads % tp == 0,
            f"{model.heads} heads cannot be split over tensor-parallel size {tp}: use {divisors(model.heads)}.",
        )
        require(
            model.mlp_hidden % tp == 0,
            f"model.mlp_hidden {model.mlp_hidden} cannot be split over tensor-parallel size {tp}: "
            f"make it a multiple of {tp}.",
        )
        require(
            not self.sequence_parallel or tp > 1,
            "parallel.sequence_parallel needs tensor parallelism: set parallel.tp to 2 or more, or leave it out.",
        )
        parts = self.cp * (tp if self.sequence_parallel else 1)
        require(
            length % parts == 0,
            f"model.sequence_length {length} cannot be split over {parts} ranks (context-parallel {self.cp}"
            f"{f' x sequence-parallel {tp}' if self.sequence_parallel else ''}): make it a multiple of {parts}.",
        )
        require(
            self.cp == 1 or length // self.cp >= model.kernel - 1,
            f"model.sequence_length {length} over {self.cp} ranks leaves {length // self.cp} tokens each, fewer "
            f"than the {model.kernel - 1} that SLC2 looks back: use a smaller parallel.cp.",
        )

    def check_processes(self, processes: int) -> None:
        """Raises InputError when so many processes cannot be split into groups of tensor x context."""
        one = self.tp * self.cp
        kind, choice = f"tensor-parallel groups of {self.tp}", f"set parallel.tp to a divisor of {processes}"
        if self.cp > 1:
            kind = f"groups of {one} (tensor {self.tp} x context {self.cp})"
            choice = f"choose parallel.tp and parallel.cp whose product divides {processes}"
        require(
            processes % one == 0,
            f"{processes} processes cannot be split into {kind}: start a multiple of {one} "
            f"(deepspeed --num_gpus {one} ...), or {choice}.",
        )

    def check_muon(self, processes: int) -> None:
        """Raises InputError where Muon's whole updates would have to go to very many ranks."""
        require(
            self.zero_stage > 0 or processes // self.tp <= _REPLICAS,
            f"ZeRO stage 0 would send every matrix's whole update to each of {processes // self.tp} ranks: set "
            f"parallel.zero_stage to 1 (beyond {_REPLICAS} ranks with the same part of the model).",
        )
