"""The most memory that a rank needs in a training step, and what it is made of when it is most.

A micro-batch is gone through part by part, as it runs: what each part keeps, what it needs for a moment, and what
DeepSpeed has beside it at that time. The most is there, while a bucket of gradients is reduced, or in the optimizer.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from megatron_iberis.config import ModelConfig
from megatron_iberis.planner.parameters import parameters_of
from megatron_iberis.planner.states import States
from megatron_iberis.planner.work import Parts

CUDA_CONTEXT = 0.5e9
"""Of a process on a GPU; with a communicator's buffers for each group of ranks. Fujii et al. (arXiv 2411.06465):
0.3 to 0.5 GB."""
COMMUNICATOR = 0.4e9
ALLOCATOR_SLACK = 0.05
"""Share of what is allocated that the caching allocator cannot use again; a guess until it is measured on a GPU."""
FITS_BELOW = 0.85
"""Of a device's memory: what is planned above it may or may not fit."""


@dataclass(frozen=True)
class Memory:
    """Bytes of one rank when it needs most."""

    weights: float
    gradients: float
    optimizer: float
    activations: float
    """Kept for the backward pass."""
    passing: float
    """For a moment: inside a layer, the loss, the optimizer."""
    buffers: float
    """DeepSpeed's, and gathered parameters."""
    when: str
    """"forward", "backward", "reduction" or "optimizer"."""

    @property
    def tensors(self) -> float:
        """What torch's allocator is asked for."""
        return self.weights + self.gradients + self.optimizer + self.activations + self.passing + self.buffers

    def overhead(self, groups: int) -> float:
        """Beside the tensors, on a GPU: context, communicators of so many groups, slack."""
        return CUDA_CONTEXT + COMMUNICATOR * groups + ALLOCATOR_SLACK * self.tensors


def memory_of(model: ModelConfig, states: States, parts: Parts, tp: int) -> Memory:
    """The largest of all moments."""
    return max(_moments(model, states, parts, tp), key=lambda memory: memory.tensors)


def _moments(model: ModelConfig, states: States, parts: Parts, tp: int) -> Iterator[Memory]:
    order = [("embedding", parts.embedding)]
    kinds = ["attention" if model.is_attention(layer) else "slc2" for layer in range(model.depth)]
    order += [(kind, parts.layers[kind]) for kind in kinds] + [("head", parts.head)]
    elements, largest = _elements(model, tp), _largest(model, tp)

    def moment(when: str, activations: float, passing: float, gradients: float = 0.0, buffers: float = 0.0) -> Memory:
        return Memory(
            states.weights,
            states.gradients + gradients,
            states.master + states.moments,
            activations,
            passing,
            states.buffers + buffers,
            when,
        )

    live = 0.0
    yield moment("forward", 0.0, 0.0, buffers=states.gathered + states.message)
    for _, part in order:
        yield moment("forward", live, part.forward, buffers=states.gathered)
        live += part.kept
    whole = sum(elements[name] for name, _ in order)
    grown, filled = states.collected, 0.0
    yield moment("backward", live, 0.0, buffers=states.gathered + states.message)
    for name, part in reversed(order):
        yield moment("backward", live, part.backward, grown, states.gathered + states.bucket)
        live -= part.kept
        yield moment("backward", live, states.added * largest[name], grown, states.gathered + states.bucket)
        grown += states.grown * elements[name]
        if filled + elements[name] > states.bucket_elements:
            yield moment("reduction", live, states.reduction * filled, grown, states.gathered + states.bucket)
            filled = 0.0
        filled += elements[name]
    last = min(filled, states.bucket_elements, whole)
    left = max(grown, states.reduced - states.gradients)
    yield moment("reduction", 0.0, states.reduction * last, left, states.gathered + states.bucket)
    yield moment("optimizer", 0.0, states.step, states.reduced - states.gradients)


def _elements(model: ModelConfig, tp: int) -> dict[str, int]:
    """Parameters of one part of each name."""
    counts = {"embedding": 1, "head": 1, "attention": 0, "slc2": 0}
    counts["attention"] = len(model.attention_layers)
    counts["slc2"] = model.depth - counts["attention"]
    totals = dict.fromkeys(counts, 0)
    for parameter in parameters_of(model, tp):
        totals[parameter.part] += parameter.numel
    return {name: total // counts[name] if counts[name] else 0 for name, total in totals.items()}


def _largest(model: ModelConfig, tp: int) -> dict[str, int]:
    """Elements of the largest parameter of each part."""
    found: dict[str, int] = {}
    for parameter in parameters_of(model, tp):
        found[parameter.part] = max(found.get(parameter.part, 0), parameter.numel)
    return found
