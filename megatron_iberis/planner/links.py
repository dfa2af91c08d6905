"""What is sent between ranks in a step, over which link, and how long that takes.

A group of ranks has `members` in each of `nodes` nodes. Large messages go by rings inside the nodes and, each member
with its own adapter, between them at the same time; the slower of the two decides.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass, field

from megatron_iberis.config import Recipe
from megatron_iberis.planner.layouts import Layout
from megatron_iberis.planner.parameters import Parameter, parameters_of
from megatron_iberis.planner.states import Spread, sent_elements
from megatron_iberis.planner.work import Work

# How often each byte of a whole tensor passes a rank's link, over (size - 1) / size.
PASSES = {"all_reduce": 2.0, "all_gather": 1.0, "reduce_scatter": 1.0, "all_to_all": 1.0, "broadcast": 1.0}


@dataclass(frozen=True)
class Wires:
    """Bytes a second that a rank gets, one direction, and seconds before a message moves."""

    link: float
    adapter: float
    latency: float
    node_latency: float


@dataclass(frozen=True)
class Group:
    members: int
    nodes: int

    @property
    def size(self) -> int:
        return self.members * self.nodes


@dataclass
class Sent:
    """A rank's messages of a step: bytes over its node's links and over the network, and seconds."""

    inside: float = 0.0
    between: float = 0.0
    seconds: float = 0.0

    def add(self, wires: Wires, collective: str, size: float, group: Group, messages: float = 1.0) -> None:
        """size: of the whole tensors, all messages together; for all_to_all what one rank has of them."""
        if group.size == 1 or not messages:
            return
        passes = PASSES.get(collective, 1.0)
        if collective == "all_to_all":
            inside = size * (group.members - 1) / group.size
            between = size * (group.size - group.members) / group.size
        else:
            inside = passes * size * (group.members - 1) / group.members
            between = passes * size * (group.nodes - 1) / group.nodes / group.members
        self.inside += inside
        self.between += between
        wait = wires.latency * math.ceil(math.log2(max(2, group.members)))
        wait += wires.node_latency * math.ceil(math.log2(group.nodes))
        self.seconds += max(inside / wires.link, between / wires.adapter) + messages * wait


@dataclass
class Traffic:
    """By what it is for: "tensor", "context", "gradients", "parameters", "muon"."""

    parts: dict[str, Sent] = field(default_factory=lambda: defaultdict(Sent))

    @property
    def seconds(self) -> float:
        return sum(sent.seconds for sent in self.parts.values())

    @property
    def inside(self) -> float:
        return sum(sent.inside for sent in self.parts.values())

    @property
    def between(self) -> float:
        return sum(sent.between for sent in self.parts.values())


def groups_of(layout: Layout, per_node: int) -> dict[str, Group]:
    """Where the ranks of each group sit: tensor is fastest, then context, then data."""
    node = min(per_node, layout.world)

    def group(size: int, stride: int) -> Group:
        members = max(1, min(size, node // stride))
        return Group(members, math.ceil(size / members))

    return {
        "tp": group(layout.tp, 1),
        "cp": group(layout.cp, layout.tp),
        "dp_cp": group(layout.cp * layout.dp, layout.tp),
        "world": group(layout.world, 1),
    }


def traffic_of(recipe: Recipe, layout: Layout, work: Work, wires: Wires, per_node: int) -> Traffic:
    """Of one step. work: of a micro-batch, with the messages inside the model."""
    groups, traffic = groups_of(layout, per_node), Traffic()
    for (collective, name), size in work.sent.items():
        if name in ("tp", "cp"):
            part = traffic.parts["tensor" if name == "tp" else "context"]
            times = layout.accumulation
            part.add(wires, collective, times * size, groups[name], times * work.messages[collective, name])
    parameters = parameters_of(recipe.model, layout.tp)
    total = sum(p.numel for p in parameters)
    _zero(recipe, layout, total, len(parameters), traffic, wires, groups["dp_cp"])
    if recipe.optimizer.kind == "muon":
        _muon(recipe, layout, parameters, traffic, wires, groups["world"])
    return traffic


def _zero(
    recipe: Recipe, layout: Layout, total: int, tensors: int, traffic: Traffic, wires: Wires, group: Group
) -> None:
    """Gradients in fp32: all-reduced once a step, at stage 2 in every micro-batch (DeepSpeed's default), at stage 3
    scattered in every one, where parameters are gathered forward and backward, too."""
    size, times = 2 if recipe.train.dtype == "bf16" else 4, layout.accumulation
    gradients, weights = traffic.parts["gradients"], traffic.parts["parameters"]
    if layout.zero_stage == 3:
        gradients.add(wires, "reduce_scatter", 4.0 * total * times, group, times * max(1, total / 5e8))
        weights.add(wires, "all_gather", 2.0 * size * total * times, group, times * 2 * max(1, total / 5e7))
        return
    times = times if layout.zero_stage == 2 else 1
    gradients.add(wires, "all_reduce", 4.0 * total * times, group, times * max(1, total / 5e8))
    if layout.zero_stage:
        weights.add(wires, "all_gather", float(size) * total, group, 4)


def _muon(
    recipe: Recipe, layout: Layout, parameters: list[Parameter], traffic: Traffic, wires: Wires, world: Group
) -> None:
    """Pieces of gradients to the matrices' owners, and back; without ZeRO back to every replica."""
    size = 2 if recipe.optimizer.newton_schulz_dtype == "bf16" else 4
    matrices = sum(p.numel for p in parameters if p.group == "matrix")
    sent = sent_elements(recipe, spread_of(layout), parameters, matrices / (layout.dp * layout.cp))
    part = traffic.parts["muon"]
    part.add(wires, "all_to_all", size * sent, world)
    part.add(wires, "all_to_all", size * (sent if layout.zero_stage else matrices), world)


def spread_of(layout: Layout, gpu: bool = True) -> Spread:
    """How the layout spreads a model's state."""
    return Spread(layout.tp, layout.dp * layout.cp, layout.world, layout.accumulation, gpu)
