"""The table's rows, and how they are measured."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain

import psutil
from pydantic import FiniteFloat

from benchmarks.cpu import contenders
from benchmarks.cpu.children import in_child, peak_of_steps
from benchmarks.cpu.contenders import Step
from benchmarks.cpu.shapes import Dtype, Scale, Shape
from megatron_iberis.parallel.groups import ParallelGroups

SPEED = "tokens/s"
"""The unit in which more is better; less is in every other."""


@dataclass(frozen=True)
class Target:
    """What is aimed at: a bound of the ratio or of our figure, from below for speeds, from above for the rest."""

    bound: float
    of_ratio: bool = True


@dataclass(frozen=True)
class Row:
    """A comparison. ratio: ours to the baseline's, by rounds; both are medians in `unit`."""

    section: str
    what: str
    unit: str
    ours: float
    baseline: float
    ratio: FiniteFloat
    target: Target | None = None

    @property
    def more_is_better(self) -> bool:
        return self.unit == SPEED

    @property
    def met(self) -> bool:
        """Whether the target is; also without one."""
        if self.target is None:
            return True
        found = self.ratio if self.target.of_ratio else self.ours
        return found >= self.target.bound if self.more_is_better else found <= self.target.bound


def in_turns(steps: Mapping[str, Step], rounds: int, warm_up: int) -> dict[str, list[float]]:
    """Seconds of each step, which take turns (A B C A B C ...), so that what else the machine does meets all."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(-warm_up, rounds):
        for name, step in steps.items():
            started = time.perf_counter()
            step()
            if number >= 0:
                seconds[name].append(time.perf_counter() - started)
    return seconds


def speed_row(
    section: str, what: str, tokens: int, ours: list[float], baseline: list[float], target: float | None = None
) -> Row:
    """From the seconds of the rounds."""
    ratio = statistics.median(theirs / own for own, theirs in zip(ours, baseline, strict=True))
    rates = (tokens / statistics.median(ours), tokens / statistics.median(baseline))
    return Row(section, what, SPEED, *rates, ratio, None if target is None else Target(target))


def passes(scale: Scale, groups: ParallelGroups) -> Iterator[Row]:
    """Forward + backward beside the reference in the same precision."""
    shape = scale.small
    targets: dict[Dtype, float] = {"fp32": 1.6, "bf16": 2.4}
    for dtype, target in targets.items():
        found = in_turns(contenders.passes(shape, dtype, groups), scale.rounds, scale.warm_up)
        baseline = found.pop("baseline")
        for name, seconds in found.items():
            what = ", ".join(filter(None, (dtype, name)))
            aimed = target if name in ("", "compiled") else None
            yield speed_row(f"forward + backward {shape.name}", what, shape.tokens, seconds, baseline, aimed)


def loss(scale: Scale) -> Iterator[Row]:
    """Milliseconds of head and loss beyond those of the matrix products alone, ours beside the reference's."""
    for dtype in contenders.DTYPES:
        found = in_turns(contenders.losses(scale.small, dtype), scale.loss_rounds, scale.warm_up)
        ours, theirs = (
            [1e3 * (whole - products) for whole, products in zip(found[side], found["products"], strict=True)]
            for side in ("", "baseline")
        )
        ratio = statistics.median(own / other for own, other in zip(ours, theirs, strict=True))
        medians = (statistics.median(ours), statistics.median(theirs))
        section = f"loss beyond its products {scale.small.name}"
        yield Row(section, dtype, "ms", *medians, ratio, Target(30.0, of_ratio=False))


def steps(scale: Scale, groups: ParallelGroups) -> Iterator[Row]:
    """Whole steps of the small shape: the engine beside upstream's training, as on a CPU (fp32) and in bf16."""
    rounds = (scale.rounds, scale.warm_up)
    yield from _steps(scale.small, groups, "fp32", ("", "compiled"), ("fp32",), 2.0, rounds)
    yield from _steps(scale.small, groups, "bf16", ("", "compiled"), ("fp32", "bf16"), 3.5, rounds)


def large_steps(scale: Scale, groups: ParallelGroups) -> Iterator[Row]:
    """Whole steps of the large shape: ours in bf16 beside all that upstream has on a CPU. Another baseline would be
    minutes."""
    rounds = (scale.large_rounds, scale.large_warm_up)
    yield from _steps(scale.large, groups, "bf16", ("compiled",), ("fp32",), 1.9, rounds)


def _steps(
    shape: Shape,
    groups: ParallelGroups,
    dtype: Dtype,
    forms: tuple[str, ...],
    baselines: tuple[Dtype, ...],
    target: float,
    rounds: tuple[int, int],
) -> Iterator[Row]:
    """The baselines come one after the other: a large model has no room beside two."""
    engines = {form: contenders.engine_of(shape, dtype, groups, form == "compiled") for form in forms}
    ours = {form: contenders.engine_step(engine, shape) for form, engine in engines.items()}
    for baseline in baselines:
        found = in_turns({**ours, "baseline": contenders.upstream_step(shape, baseline)}, *rounds)
        for form in forms:
            what = ", ".join(filter(None, (dtype, form))) + f" / upstream {baseline}"
            both = (found[form], found["baseline"])
            yield speed_row(f"whole step {shape.name}", what, shape.tokens, *both, target)
        gc.collect()
    for engine in engines.values():
        engine.deepspeed.destroy()
    del engines, ours
    gc.collect()  # engines are full of cycles


def memory(scale: Scale, shape: Shape, threads: int) -> Iterator[Row]:
    """Peak memory of a fresh process beyond its imports."""
    sides = ("ours", "upstream")
    ours, theirs = (in_child(peak_of_steps, side, shape, "bf16", threads, scale.memory_steps) / 1e6 for side in sides)
    section = f"peak memory of {scale.memory_steps} steps {shape.name}"
    yield Row(section, "bf16 / upstream bf16", "MB", ours, theirs, ours / theirs, Target(0.6))


def why_without_large(scale: Scale, quick: bool) -> str:
    """In a sentence why the large shape is left out; empty where it is not."""
    available = psutil.virtual_memory().available
    if quick:
        return f"{scale.large.name} is left out: --quick asks for that."
    if available < scale.large_needs:
        return (
            f"{scale.large.name} is left out: it needs {scale.large_needs / 1e9:.0f} GB of available memory, and "
            f"there are {available / 1e9:.1f}."
        )
    return ""


def measure(scale: Scale, threads: int, large: bool, say: Callable[[str], None]) -> list[Row]:
    """All rows, the large shape's last. say: is told of each as it is found."""
    groups = contenders.start(threads)
    sections = [passes(scale, groups), loss(scale), steps(scale, groups), memory(scale, scale.small, threads)]
    if large:
        sections += [large_steps(scale, groups), memory(scale, scale.large, threads)]
    found: list[Row] = []
    started = time.monotonic()
    for row in chain.from_iterable(sections):
        found.append(row)
        figures = f"{row.ours:,.1f} {row.unit}, {row.baseline:,.1f}, ratio {row.ratio:.2f}"
        say(f"{time.monotonic() - started:5.0f} s  {row.section}: {row.what}: {figures}")
    return found
