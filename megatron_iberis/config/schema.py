"""The sections of a recipe, each a frozen dataclass that checks itself.

* A size of 0 means "derive it": `resolved()` fills it in from the depth, as nanochat does.
* `check()` raises InputError with one sentence that names the setting and the fix.
* Nothing here imports torch, so that `iberis --help` and a wrong recipe both answer at once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

from megatron_iberis.errors import InputError


def require(condition: bool, message: str) -> None:
    """Raises InputError(message) unless the condition holds."""
    if not condition:
        raise InputError(message)


def divisors(number: int) -> str:
    """The divisors of a small number as text, "1, 2, 5 or 10", for messages that offer a fix."""
    found = [str(d) for d in range(1, number + 1) if number % d == 0]
    return found[0] if len(found) == 1 else f"{', '.join(found[:-1])} or {found[-1]}"


@dataclass(frozen=True)
class ModelConfig:
    """The architecture. The depth sets the width and the heads; every one of them can still be set."""

    depth: int = 20
    """Number of layers. Layer i is attention when i % slc_rate == 1 or i is the last one, else SLC2."""
    width: int = 0
    """Channels of the residual stream (E); 0: 64 x depth."""
    head_size: int = 128
    """Channels a head (D): 128 in the English recipe, 64 in the Japanese-English one."""
    heads: int = 0
    """Query heads (H), also the heads of SLC2's gate; 0: width / head_size, rounded up."""
    kv_heads: int = 0
    """Key and value heads, shared by groups of query heads; 0: as many as query heads."""
    mlp_ratio: float = 4.0
    """Width of the MLP over the model's; 5.5 in the Japanese-English recipe."""
    mlp_hidden: int = 0
    """Channels inside the MLP; 0: int(mlp_ratio x width)."""
    inner_norm: bool = False
    """RMS norm inside SLC2 before its output projection; on in the Japanese-English recipe."""
    slc_rate: int = 3
    """One layer in so many is attention; 1 makes every layer attention, for comparison."""
    kernel: int = 3
    """Taps of SLC2's causal convolution (K), the current token included."""
    vocab_size: int = 65536
    """Token ids (V). The tokenizer may have fewer, never more."""
    sequence_length: int = 2048
    """Tokens in a training row (T)."""
    rope_base: float = 10000.0
    """Base of the rotary angles."""
    softcap: float = 15.0
    """Logits are capped softly: softcap x tanh(logits / softcap)."""
    norm_eps: float = 1.1920929e-07
    """Added to the mean square in every RMS norm; the default is fp32's machine epsilon."""

    def resolved(self) -> ModelConfig:
        """The same with every derived size filled in. Raises InputError when there is nothing to derive it from."""
        require(self.head_size >= 1, f"model.head_size is {self.head_size}: it must be at least 1.")
        require(self.mlp_ratio > 0, f"model.mlp_ratio is {self.mlp_ratio}: it must be positive.")
        width = self.width or 64 * self.depth
        heads = self.heads or math.ceil(width / self.head_size)
        return replace(
            self,
            width=width,
            heads=heads,
            head_size=width // heads if heads and width % heads == 0 else self.head_size,
            kv_heads=self.kv_heads or heads,
            mlp_hidden=self.mlp_hidden or int(self.mlp_ratio * width),
        )

    def check(self) -> None:
        """Raises InputError when the (resolved) sizes cannot make a model."""
        for name in ("depth", "width", "heads", "kv_heads", "mlp_hidden", "slc_rate", "kernel", "sequence_length"):
            value = getattr(self, name)
            require(value >= 1, f"model.{name} is {value}: it must be at least 1.")
        require(
            2 <= self.vocab_size <= 2**31,
            f"model.vocab_size is {self.vocab_size}: it must be at least 2 and at most 2,147,483,648 (token files "
            "hold 32-bit ids).",
        )
        require(
            self.width % self.heads == 0,
            f"model.width {self.width} cannot be split into {self.heads} heads: set model.heads to a divisor "
            f"of {self.width}, or choose another model.depth.",
        )
        require(
            (self.width // self.heads) % 2 == 0,
            f"model.width {self.width} over {self.heads} heads gives {self.width // self.heads} channels a head: "
            "rotary embedding needs an even number; change model.heads.",
        )
        require(
            self.heads % self.kv_heads == 0,
            f"{self.heads} query heads cannot share {self.kv_heads} key-value heads: "
            f"set model.kv_heads to {divisors(self.heads)}.",
        )
        require(
            0 < self.softcap <= 40,
            f"model.softcap is {self.softcap}: it must be positive and at most 40 (the loss takes exp(-2 x softcap) "
            "in fp32).",
        )
        require(self.rope_base > 0, f"model.rope_base is {self.rope_base}: it must be positive.")
        require(self.norm_eps > 0, f"model.norm_eps is {self.norm_eps}: it must be positive.")

    def is_attention(self, layer: int) -> bool:
        """Whether layer `layer` (from 0) mixes by attention; the others by SLC2."""
        return layer == self.depth - 1 or layer % self.slc_rate == 1 % self.slc_rate

    @property
    def attention_layers(self) -> list[int]:
        """The numbers (from 0) of the attention layers."""
        return [layer for layer in range(self.depth) if self.is_attention(layer)]

    def parameter_count(self) -> int:
        """Parameters of the resolved model, padding of the vocabulary not counted."""
        e, h = self.width, self.heads
        head = e // h
        slc2 = 3 * e * e + e * h + e * head + e * self.kernel
        attention = 2 * e * e + 2 * e * self.kv_heads * head
        count = len(self.attention_layers)
        mixers = count * attention + (self.depth - count) * slc2
        return 2 * self.vocab_size * e + mixers + self.depth * 2 * e * self.mlp_hidden

    def flops_per_token(self) -> float:
        """Training FLOPs a token: 6 a matrix parameter, and attention's products where there is attention.

        The embedding is a look-up and counts nothing. Upstream counts attention in all layers, 12 to 14 %
        too much. Attention is counted whole (12 E T), as nanochat does, although half of it is masked.
        """
        dense = 6.0 * (self.parameter_count() - self.vocab_size * self.width)
        return dense + 12.0 * self.width * self.sequence_length * len(self.attention_layers)


@dataclass(frozen=True)
class ParallelConfig:
    """How the run is spread over processes. Data parallelism takes what the other sizes leave."""

    tp: int = 1
    """Tensor-parallel size: every matrix is split over so many ranks; keep it inside a node."""
    sequence_parallel: bool = False
    """Split norms and residuals by tokens over the tensor-parallel ranks too (saves memory)."""
    cp: int = 1
    """Context-parallel size: every sequence is split over so many ranks, for long contexts."""
    recompute: bool = False
    """Keep only each layer's input for the backward pass and run the layer again: less memory, a third more work."""
    zero_stage: Literal[0, 1, 2, 3] = 1
    """DeepSpeed ZeRO: 0 shards nothing, 1 optimizer state, 2 gradients too, 3 parameters too."""
    timeout_minutes: float = 30.0
    """Longest wait for another rank in a collective before the run is ended."""

    def check(self, model: ModelConfig) -> None:
        """Raises InputError when the model cannot be split this way."""
        tp, length = self.tp, model.sequence_length
        require(tp >= 1, f"parallel.tp is {tp}: it must be at least 1.")
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
        require(self.cp >= 1, f"parallel.cp is {self.cp}: it must be at least 1.")
        parts = self.cp * (tp if self.sequence_parallel else 1)
        require(
            length % parts == 0,
            f"model.sequence_length {length} cannot be split over {parts} ranks (context-parallel {self.cp}"
            f"{f' x sequence-parallel {tp}' if self.sequence_parallel else ''}): make it a multiple of {parts}.",
        )
        require(
            self.cp == 1 or length // self.cp >= model.kernel - 1,
            f"model.sequence_length {length} over {self.cp} ranks leaves {length // self.cp} tokens each, fewer "
            f" than the {model.kernel - 1} that SLC2 looks back: use a smaller parallel.cp.",
        )
        require(
            0 < self.timeout_minutes <= 100_000,
            f"parallel.timeout_minutes is {self.timeout_minutes}: it must be positive and at most 100,000.",
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


@dataclass(frozen=True)
class OptimizerConfig:
    """Muon for the matrices inside the blocks, AdamW for embedding, head and convolutions."""

    matrix_lr: float = 0.02
    """Muon's learning rate; the convolutions take it too, scaled as AdamW's rates are."""
    embedding_lr: float = 0.2
    """AdamW's rate for the token embedding, at width 768: scaled by sqrt(768 / width)."""
    unembedding_lr: float = 0.004
    """AdamW's rate for the output head, at width 768: scaled by sqrt(768 / width)."""
    beta1: float = 0.8
    """AdamW's decay of the mean gradient."""
    beta2: float = 0.95
    """AdamW's decay of the mean squared gradient."""
    eps: float = 1e-10
    """AdamW's epsilon."""
    weight_decay: float = 0.0
    """Decoupled weight decay of the AdamW groups."""
    momentum_start: float = 0.85
    """Muon's momentum at the first step."""
    momentum: float = 0.95
    """Muon's momentum after its warm-up."""
    momentum_warmup_steps: int = 300
    """Steps over which the momentum goes linearly from momentum_start to momentum."""
    newton_schulz_steps: int = 5
    """Iterations of the quintic that orthogonalises a gradient."""
    newton_schulz_dtype: Literal["auto", "bf16", "fp32"] = "auto"
    """Its precision; auto: bf16 when training in bf16, else fp32."""
    clip: float = 1.0
    """Largest global norm of the raw gradient; 0 does not clip."""
    warmup_steps: int = 0
    """Steps over which all rates rise linearly from 0."""
    warmdown_fraction: float = 0.2
    """Share of the steps, at the end, over which all rates fall linearly."""
    final_lr_fraction: float = 0.0
    """Share of the rates that is left at the very end."""

    def resolved(self, dtype: str) -> OptimizerConfig:
        """The same with the precision of Newton-Schulz decided."""
        if self.newton_schulz_dtype != "auto":
            return self
        return replace(self, newton_schulz_dtype="bf16" if dtype == "bf16" else "fp32")

    def check(self) -> None:
        """Raises InputError when a rate or factor is out of its range."""
        for name in ("matrix_lr", "embedding_lr", "unembedding_lr", "eps", "weight_decay", "clip"):
            require(getattr(self, name) >= 0, f"optimizer.{name} must not be negative.")
        for name in ("beta1", "beta2", "momentum_start", "momentum"):
            value = getattr(self, name)
            require(0 <= value < 1, f"optimizer.{name} is {value}: it must be in [0, 1).")
        for name in ("warmdown_fraction", "final_lr_fraction"):
            value = getattr(self, name)
            require(0 <= value <= 1, f"optimizer.{name} is {value}: it must be in [0, 1].")
        for name in ("momentum_warmup_steps", "warmup_steps"):
            require(getattr(self, name) >= 0, f"optimizer.{name} must not be negative.")
        require(self.newton_schulz_steps >= 1, "optimizer.newton_schulz_steps must be at least 1.")


@dataclass(frozen=True)
class TrainConfig:
    """Horizon and batch."""

    steps: int = 0
    """Optimizer steps; 0: by target_flops, and failing that by tokens_per_parameter."""
    target_flops: float = 0.0
    """Training compute of the whole run; 0: by tokens_per_parameter."""
    tokens_per_parameter: float = 20.0
    """Horizon when neither steps nor target_flops is given: tokens seen for each parameter."""
    batch_tokens: int = 524288
    """Tokens of an optimizer step, all ranks together."""
    device_batch: int = 32
    """Rows of a micro-batch on one data-parallel rank; gradient accumulation makes up the rest."""
    dtype: Literal["bf16", "fp32"] = "bf16"
    """Precision of the model; with bf16 the master weights and gradient sums are fp32."""
    seed: int = 42
    """Seed of the initialisation and of the order of samples."""
    log_every: int = 1
    """Steps between console lines."""
    max_skipped_steps: int = 3
    """So many steps in a row with a loss or gradient that is not finite end the run; one alone is skipped."""

    def check(self, model: ModelConfig) -> None:
        """Raises InputError when the batch or an interval makes no sense."""
        for name in ("steps", "target_flops"):
            require(getattr(self, name) >= 0, f"train.{name} must not be negative.")
        require(0 <= self.seed < 2**63, f"train.seed is {self.seed}: it must be in [0, 2^63).")
        for name in ("batch_tokens", "device_batch", "log_every", "max_skipped_steps"):
            require(getattr(self, name) >= 1, f"train.{name} must be at least 1.")
        require(
            self.steps > 0 or self.target_flops > 0 or self.tokens_per_parameter > 0,
            "the run has no horizon: set train.steps, train.target_flops or train.tokens_per_parameter.",
        )
        row = self.device_batch * model.sequence_length
        require(
            self.batch_tokens % row == 0,
            f"train.batch_tokens {self.batch_tokens} is no multiple of train.device_batch x model.sequence_length "
            f"= {self.device_batch} x {model.sequence_length} = {row}: change one of the three.",
        )

    def horizon(self, model: ModelConfig) -> int:
        """Optimizer steps of the run: explicit, else by compute, else by tokens per parameter."""
        if self.steps > 0:
            return self.steps
        if self.target_flops > 0:
            return max(1, round(self.target_flops / (model.flops_per_token() * self.batch_tokens)))
        return max(1, int(self.tokens_per_parameter * model.parameter_count()) // self.batch_tokens)

    def accumulation(self, model: ModelConfig, data_parallel: int) -> int:
        """Micro-batches a step on each of `data_parallel` ranks; InputError when they do not fit."""
        rows = self.device_batch * model.sequence_length
        require(
            self.batch_tokens % (rows * data_parallel) == 0,
            f"train.batch_tokens {self.batch_tokens} cannot be shared by {data_parallel} data-parallel ranks with "
            f"{self.device_batch} rows of {model.sequence_length} tokens each: set train.device_batch to a divisor "
            f"of {self.batch_tokens // model.sequence_length} / {data_parallel}, or train.batch_tokens to a multiple "
            f"of {rows * data_parallel}.",
        )
        return self.batch_tokens // (rows * data_parallel)


@dataclass(frozen=True)
class EvaluationConfig:
    """Looks at the model along the way: bits per byte on held-out text, and sample texts."""

    every: int = 250
    """Steps between validations (also at the start and the end); 0: only at the end."""
    tokens: int = 10485760
    """Tokens of a validation, as many as there are at most."""
    sample_every: int = 2000
    """Steps between sample texts (also at the end); 0: none."""
    sample_tokens: int = 16
    """Tokens of a sample text."""
    sample_prompts: tuple[str, ...] = (
        "The capital of France is",
        "If yesterday was Friday, then tomorrow will be",
    )
    """What the sample texts continue."""

    def check(self) -> None:
        """Raises InputError when an interval or a number of tokens makes no sense."""
        for name in ("every", "tokens", "sample_every"):
            require(getattr(self, name) >= 0, f"evaluation.{name} must not be negative.")
        require(self.sample_tokens >= 1, "evaluation.sample_tokens must be at least 1.")


@dataclass(frozen=True)
class DataConfig:
    """Token files, made by data_tools/preprocess.py, and the tokenizer that made them."""

    train: str = ""
    """Token files to train on, without .bin: "a", "a | b" (each once an epoch) or "0.7 a | 0.3 b" (by weight)."""
    packing: Literal["concat", "best_fit", "megatron"] = "concat"
    """How rows are cut from the training text: where they fall (concat), of whole documents (best_fit), or as
    megatron-core's GPTDataset does (megatron)."""
    document_mask: bool = False
    """Documents in a row do not see each other: neither attention nor SLC2's convolution looks across a border."""
    val: str = ""
    """Held-out token file for bits per byte; empty: no validation."""
    tokenizer: str = ""
    """Folder of the tokenizer."""


@dataclass(frozen=True)
class CheckpointConfig:
    """When to save, and what to keep."""

    every: int = 1000
    """Steps between checkpoints; 0: only at the end."""
    keep_last: int = 0
    """The newest checkpoints, so many, are kept and older ones removed; 0: all are kept."""
    keep_every: int = 0
    """Checkpoints after multiples of so many steps are kept whatever their age; 0: none."""

    def check(self) -> None:
        """Raises InputError when a number is negative, or keep_every says nothing."""
        for name in ("every", "keep_last", "keep_every"):
            require(getattr(self, name) >= 0, f"checkpoint.{name} must not be negative.")
        require(
            not self.keep_every or self.keep_last > 0,
            f"checkpoint.keep_every is {self.keep_every} and checkpoint.keep_last is 0, by which all are kept: set "
            "checkpoint.keep_last, for example to 2.",
        )
        require(
            not self.keep_every or (self.every > 0 and self.keep_every % self.every == 0),
            f"checkpoint.keep_every is {self.keep_every} and checkpoints are made every {self.every} steps: make "
            "checkpoint.keep_every a multiple of checkpoint.every.",
        )


@dataclass(frozen=True)
class RunConfig:
    """Where the run lives."""

    folder: str = "runs/iberis"
    """Folder of recipe, checkpoints, TensorBoard curves and log."""
    resume: bool = False
    """Go on from the folder's latest checkpoint; without one, start at the beginning."""

    def check(self) -> None:
        """Raises InputError when there is no folder."""
        require(self.folder.strip() != "", "run.folder is empty: name the run's folder, for example runs/first.")
