"""What each part of a model takes on one rank, by running the real parts under fake tensors.

* A model of two layers, one of each kind, goes forward and backward once; hooks tell which part is at work.
* Groups of ranks that are not there answer at once and move nothing (torch's FakeProcessGroup); so one process
  learns what one of any number of ranks does. Works beside a run's own groups, too.
* A micro-batch of many tokens is extrapolated from two small ones: everything is linear in the rows.
"""

from __future__ import annotations

import gc
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from megatron.core import parallel_state
from torch import nn
from torch._C._distributed_c10d import FakeProcessGroup
from torch._subclasses.fake_tensor import FakeTensorMode

from megatron_iberis.config import ModelConfig
from megatron_iberis.kernels.linear_cross_entropy import chunked as loss
from megatron_iberis.model.initialization import build_model
from megatron_iberis.parallel.groups import ParallelGroups
from megatron_iberis.planner.tracing import Tracer
from megatron_iberis.planner.work import Part, Parts, Work, extrapolated

FEW_CHUNKS = 4
"""A micro-batch of more than twice so many of the loss's chunks is extrapolated."""


@dataclass(frozen=True)
class Case:
    """What decides what the parts take; rows: of a micro-batch."""

    model: ModelConfig
    dtype: str
    rows: int
    tp: int = 1
    cp: int = 1
    sequence_parallel: bool = False
    recompute: bool = False
    gpu: bool = True
    compiled: bool = False
    """The layers, by train.compile."""


_known: dict[Case, Parts] = {}


def parts_of(case: Case) -> Parts:
    """What the parts of the case's model take; worked out once a process."""
    two = replace(case, model=replace(case.model, depth=2))  # one layer of each kind
    vocabulary = case.model.vocab_size // case.tp
    chunk = loss.chunk_rows(
        case.model.width, vocabulary, 4, _chunk_bytes(case.gpu)
    )  # beyond one, buffers grow no more
    small = -(-FEW_CHUNKS * chunk * case.cp // case.model.sequence_length)
    if case.rows <= 2 * small:
        return _traced(two)
    few, twice = (_traced(replace(two, rows=rows)) for rows in (small, 2 * small))
    return extrapolated(few, twice, small, 2 * small, case.rows)


def kinds_of(model: ModelConfig) -> dict[str, int]:
    """How many layers there are of each kind."""
    attention = len(model.attention_layers)
    counts = {"slc2": model.depth - attention, "attention": attention}
    return {kind: count for kind, count in counts.items() if count}


def _traced(case: Case) -> Parts:
    if case not in _known:
        with alone(), _apart(), _chunks_of(case.gpu), _norms_of(case.gpu), FakeTensorMode(allow_non_fake_inputs=True):
            _known[case] = _trace(case)
        gc.collect()  # models are full of cycles
    return _known[case]


def _trace(case: Case) -> Parts:
    groups = stand_in_groups(case.tp, case.cp)
    model = build_model(case.model, groups, case.sequence_parallel, case.recompute)
    cast(model, torch.bfloat16 if case.dtype == "bf16" else torch.float32)
    tokens, targets = (torch.zeros(case.rows, case.model.sequence_length, dtype=torch.long) for _ in range(2))
    tracer = Tracer([*model.parameters(), tokens, targets])
    stages = Stages(tracer, model, case.compiled)
    with tracer:
        summed = model(tokens, targets)
        stages.forward_is_done()
        summed.backward()
        stages.enter(None)
    kinds = ["attention" if case.model.is_attention(layer) else "slc2" for layer in range(case.model.depth)]
    found = dict(zip(kinds, stages.layers, strict=True))
    return Parts(stages.embedding, found, stages.head)


class Stages:
    """Divides memory and work of one forward and backward pass among embedding, layers and head.

    compiled: the work of the layers is that of compiled ones.
    """

    def __init__(self, tracer: Tracer, model: Any, compiled: bool = False) -> None:
        self.tracer, self._compiled = tracer, compiled
        self.embedding, self.head = Part(), Part()
        self.layers = [Part() for _ in model.decoder.layers]
        self._part: Part | None = None
        self._start = 0
        self._backward = False
        self.enter(self.embedding)
        before = self.embedding
        self._hooks = []
        for part, layer in zip(self.layers, model.decoder.layers, strict=True):
            self._hooks.append(layer.register_forward_pre_hook(self._begin(part, before), with_kwargs=True))
            before = part
        last = self.layers[-1]
        self._hooks.append(model.decoder.layers[-1].register_forward_hook(self._end(last)))

    def leave(self) -> None:
        """Listens to the model no longer."""
        for hook in self._hooks:
            hook.remove()

    def _begin(self, part: Part, before: Part) -> Any:
        def hook(module: Any, args: Any, kwargs: Any) -> None:
            if self._backward:
                return  # a layer that is run again: that belongs to its backward pass
            hidden = args[0] if args else kwargs["hidden_states"]
            hidden.register_hook(lambda _: self.enter(before))
            self.enter(part)

        return hook

    def _end(self, part: Part) -> Any:
        def hook(module: Any, args: Any, output: Any) -> None:
            if not self._backward:
                output[0].register_hook(lambda _: self.enter(part))
                self.enter(self.head)

        return hook

    def forward_is_done(self) -> None:
        """Backward begins, with the head."""
        self.enter(None)
        self._backward = True
        self.enter(self.head)

    def enter(self, part: Part | None) -> None:
        """What comes from now on belongs to `part`."""
        tracer = self.tracer
        tracer.end_fusion()
        tracer.fusing = self._compiled and any(part is layer for layer in self.layers)
        if self._part is not None:
            beyond = tracer.peak - self._start
            if self._backward:
                self._part.backward = beyond
            else:
                self._part.forward, self._part.kept = beyond, tracer.live - self._start
            self._part.work.add(tracer.work)
        self._part, self._start = part, tracer.live
        tracer.peak, tracer.work = tracer.live, Work()


def cast(model: nn.Module, dtype: torch.dtype) -> None:
    """Gives the model parameters of the dtype whose gradients are taken away at once, as ZeRO does."""
    for module in model.modules():
        for name, parameter in list(module._parameters.items()):
            if parameter is not None:
                cast = nn.Parameter(parameter.detach().to(dtype))
                cast.register_post_accumulate_grad_hook(_drop)
                module._parameters[name] = cast


def _drop(parameter: torch.Tensor) -> None:
    parameter.grad = None


def stand_in_groups(tp: int, cp: int) -> ParallelGroups:
    """Groups as rank 0 of a run of tp x cp ranks has them, without any other rank."""
    group = {name: _group(name, size) for name, size in (("tp", tp), ("cp", cp), ("alone", 1))}
    ranks = {"tp_ranks": tuple(range(tp)), "cp_ranks": tuple(range(0, tp * cp, tp))}
    return ParallelGroups(
        **group,
        dp=group["alone"],
        dp_host=group["alone"],
        dp_cp=group["cp"],
        **ranks,
        dp_ranks=(0,),
        dp_cp_ranks=ranks["cp_ranks"],
    )


def _group(name: str, size: int) -> Any:
    kind = dist.ProcessGroup.BackendType.CUSTOM
    fake: Any = FakeProcessGroup  # torch's stub of it lacks an argument
    group = dist.ProcessGroup(dist.HashStore(), 0, size)
    group._set_default_backend(kind)
    group._register_backend(torch.device("cpu"), kind, fake._create_internal(0, size, None))
    group._set_group_name(name)
    return group


@contextmanager
def alone() -> Iterator[None]:
    """With a default process group, which megatron-core asks for: the run's own, or one of this process alone."""
    if dist.is_initialized():
        yield
        return
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        yield
    finally:
        dist.destroy_process_group()


@contextmanager
def _apart() -> Iterator[None]:
    """Without warnings, and with a buffer of its own for megatron-core's gathers: a run that goes on afterwards is
    not to find fake tensors in there."""
    before = parallel_state._GLOBAL_MEMORY_BUFFER
    parallel_state._GLOBAL_MEMORY_BUFFER = None  # the model makes one
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        parallel_state._GLOBAL_MEMORY_BUFFER = before


@contextmanager
def _chunks_of(gpu: bool) -> Iterator[None]:
    """Fake tensors lie on the CPU, autograd wants a driver for others; the loss takes a GPU's chunks all the same."""
    before = loss.CPU_CHUNK_BYTES
    loss.CPU_CHUNK_BYTES = _chunk_bytes(gpu)
    try:
        yield
    finally:
        loss.CPU_CHUNK_BYTES = before


def _chunk_bytes(gpu: bool) -> int:
    return loss.GPU_CHUNK_BYTES if gpu else loss.CPU_CHUNK_BYTES


@contextmanager
def _norms_of(gpu: bool) -> Iterator[None]:
    """On a GPU torch's RMS norm is one kernel each way, which keeps its input; on a CPU it is many operations."""
    before = F.rms_norm
    if gpu:
        F.rms_norm = _fused_norm
    try:
        yield
    finally:
        F.rms_norm = before


def _fused_norm(input: Any, normalized_shape: Any, weight: Any = None, eps: float | None = None) -> Any:
    return _FusedNorm.apply(input)


class _FusedNorm(torch.autograd.Function):
    """Allocates, reads and writes what the GPU's kernel does; computes nothing of use."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x, x.new_empty((*x.shape[:-1], 1), dtype=torch.float32))
        return x.clone(memory_format=torch.contiguous_format)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> torch.Tensor:
        return grads[0] * ctx.saved_tensors[0]
