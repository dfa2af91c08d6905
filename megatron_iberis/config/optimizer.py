"""Section [optimizer]: the optimizers and their schedules."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Literal

from megatron_iberis.config.checks import AtLeast, AtMost, Below


@dataclass(frozen=True)
class OptimizerConfig:
    """Muon for the matrices inside the blocks, AdamW for embedding, head and convolutions."""

    matrix_lr: Annotated[float, AtLeast(0)] = 0.02
    """Muon's learning rate; the convolutions take it too, scaled as AdamW's rates are."""
    embedding_lr: Annotated[float, AtLeast(0)] = 0.2
    """AdamW's rate for the token embedding, at width 768: scaled by sqrt(768 / width)."""
    unembedding_lr: Annotated[float, AtLeast(0)] = 0.004
    """AdamW's rate for the output head, at width 768: scaled by sqrt(768 / width)."""
    beta1: Annotated[float, AtLeast(0), Below(1)] = 0.8
    """AdamW's decay of the mean gradient."""
    beta2: Annotated[float, AtLeast(0), Below(1)] = 0.95
    """AdamW's decay of the mean squared gradient."""
    eps: Annotated[float, AtLeast(0)] = 1e-10
    """AdamW's epsilon."""
    weight_decay: Annotated[float, AtLeast(0)] = 0.0
    """Decoupled weight decay of the AdamW groups."""
    momentum_start: Annotated[float, AtLeast(0), Below(1)] = 0.85
    """Muon's momentum at the first step."""
    momentum: Annotated[float, AtLeast(0), Below(1)] = 0.95
    """Muon's momentum after its warm-up."""
    momentum_warmup_steps: Annotated[int, AtLeast(0)] = 300
    """Steps over which the momentum goes linearly from momentum_start to momentum."""
    newton_schulz_steps: Annotated[int, AtLeast(1)] = 5
    """Iterations of the quintic that orthogonalises a gradient."""
    newton_schulz_dtype: Literal["auto", "bf16", "fp32"] = "auto"
    """Its precision; auto: bf16 when training in bf16, else fp32."""
    clip: Annotated[float, AtLeast(0)] = 1.0
    """Largest global norm of the raw gradient; 0 does not clip."""
    lr_fraction: Annotated[float, AtLeast(0)] = 1.0
    """What all rates are multiplied by at every step: finetuning goes on at a fraction of pretraining's."""
    warmup_steps: Annotated[int, AtLeast(0)] = 0
    """Steps over which all rates rise linearly from 0."""
    warmdown_fraction: Annotated[float, AtLeast(0), AtMost(1)] = 0.2
    """Share of the steps, at the end, over which all rates fall linearly."""
    final_lr_fraction: Annotated[float, AtLeast(0), AtMost(1)] = 0.0
    """Share of the rates that is left at the very end."""

    start: Literal["fresh", "warm"] = "fresh"
    """The optimizer's state where run.start_from gives the weights: empty, or the checkpoint's own."""

    def resolved(self, dtype: str) -> OptimizerConfig:
        """The same with the precision of Newton-Schulz decided."""
        if self.newton_schulz_dtype != "auto":
            return self
        return replace(self, newton_schulz_dtype="bf16" if dtype == "bf16" else "fp32")
