"""What a part of a model does in a training step: products, other traffic, messages. Sums and extrapolates."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

Shape = tuple[int, int, int]
"""m, n, k of a product [m, k] x [k, n]."""


@dataclass
class Work:
    """Counted forward and backward."""

    products: list[tuple[Shape, float]] = field(default_factory=list)
    """Matrix products in their order, and how often each is done."""
    attention_flops: float = 0.0
    """Executed: of causal attention the half that is not masked."""
    bytes: float = 0.0
    """Read and written by all other operations."""
    operations: float = 0.0
    """Of any kind: each has to be started."""
    sent: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Bytes of the whole tensors in collectives, by (collective, group): ("all_reduce", "tp")."""
    messages: Counter[tuple[str, str]] = field(default_factory=Counter)
    """How many collectives of each."""

    @property
    def product_flops(self) -> float:
        return float(sum(2 * m * n * k * count for (m, n, k), count in self.products))

    def add(self, other: Work, times: float = 1.0) -> None:
        """Takes in what another part does, so many times."""
        self.products += [(shape, count * times) for shape, count in other.products]
        for key, size in other.sent.items():
            self.sent[key] += size * times  # type: ignore[assignment]
            self.messages[key] += other.messages[key] * times  # type: ignore[assignment]
        self.attention_flops += other.attention_flops * times
        self.bytes += other.bytes * times
        self.operations += other.operations * times


@dataclass
class Part:
    """A part of the model for one micro-batch on one rank. Bytes; `forward` and `backward` are what is needed for a
    moment beyond what was there when that pass began, `kept` what the forward pass leaves for the backward pass."""

    kept: float = 0.0
    forward: float = 0.0
    backward: float = 0.0
    work: Work = field(default_factory=Work)


@dataclass(frozen=True)
class Parts:
    """All kinds of parts that the model is made of. `layers`: by kind, "slc2" and "attention"."""

    embedding: Part
    layers: Mapping[str, Part]
    head: Part
    """The last norm, the head, and the loss."""

    def total(self, counts: Mapping[str, int]) -> Work:
        """The work of a micro-batch of a model with so many layers of each kind."""
        work = Work()
        work.add(self.embedding.work)
        work.add(self.head.work)
        for kind, count in counts.items():
            work.add(self.layers[kind].work, count)
        return work


def extrapolated(small: Parts, large: Parts, rows_small: int, rows_large: int, rows: int) -> Parts:
    """What `rows` rows take, given what two smaller numbers of rows take: everything is linear in them."""
    share = (rows - rows_small) / (rows_large - rows_small)

    def line(a: float, b: float) -> float:
        return a + (b - a) * share

    def part(a: Part, b: Part) -> Part:
        work = Work(
            products=_products(a.work.products, b.work.products, share, rows / rows_large),
            attention_flops=line(a.work.attention_flops, b.work.attention_flops),
            bytes=line(a.work.bytes, b.work.bytes),
            operations=line(a.work.operations, b.work.operations),
        )
        for key, size in b.work.sent.items():
            work.sent[key] = line(a.work.sent[key], size)  # type: ignore[assignment]
            work.messages[key] = line(a.work.messages[key], b.work.messages[key])  # type: ignore[assignment]
        return Part(line(a.kept, b.kept), line(a.forward, b.forward), line(a.backward, b.backward), work)

    return Parts(
        part(small.embedding, large.embedding),
        {kind: part(small.layers[kind], large.layers[kind]) for kind in large.layers},
        part(small.head, large.head),
    )


def _products(
    small: list[tuple[Shape, float]], large: list[tuple[Shape, float]], share: float, times: float
) -> list[tuple[Shape, float]]:
    """Shapes grow with the rows; where their number does (the loss works in chunks), that grows instead."""
    if len(small) != len(large):
        return [(shape, count * times) for shape, count in large]
    grown = []
    for (a, count), (b, _) in zip(small, large, strict=True):
        m, n, k = (round(x + (y - x) * share) for x, y in zip(a, b, strict=True))
        grown.append(((m, n, k), count))
    return grown
