"""The loss does not know how the run is spread: golden trajectories at every layout of two and four processes.

The table of what was run is printed at the end. `make test-all` runs the whole matrix, whose layouts take the first
steps only: by the second one a gradient, a clip or an update that is not right has shown itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

import pytest

from tests.support.golden_runs import check, deviation, run
from tests.support.ranks import Ranks

ZEROINIT, RANDOM = ("jp", "C_f32tab_f32ns_zeroinit"), ("en", "C_f32tab_f32ns")


@dataclass(frozen=True)
class Layout:
    """How a run of 4 rows a step is spread. accumulation: micro-batches a step."""

    tp: int
    cp: int
    dp: int
    zero: int
    sequence_parallel: bool = False
    recompute: bool = False
    accumulation: int = 1

    def __str__(self) -> str:
        extras = [name for name in ("sequence_parallel", "recompute") if getattr(self, name)]
        if self.accumulation > 1:
            extras.append(f"accumulate {self.accumulation}")
        return f"TP {self.tp} CP {self.cp} DP {self.dp} ZeRO {self.zero} {' + '.join(extras)}".strip()

    @property
    def processes(self) -> int:
        return self.tp * self.cp * self.dp

    @property
    def device_batch(self) -> int:
        return 4 // self.dp // self.accumulation

    @property
    def settings(self) -> dict[str, Any]:
        names = {"tp": self.tp, "cp": self.cp, "zero_stage": self.zero}
        return {**names, "sequence_parallel": self.sequence_parallel, "recompute": self.recompute}


def matrix(processes: int) -> list[Layout]:
    """Every layout of so many processes that the golden batches (4 rows) allow."""
    found = []
    for tensor, context, data in product((1, 2, 4), repeat=3):
        if tensor * context * data != processes:
            continue
        for zero, sequence, recompute, accumulation in product(range(4), (False, True), (False, True), (1, 2)):
            if (sequence and tensor == 1) or data * accumulation > 4:
                continue
            found.append(Layout(tensor, context, data, zero, sequence, recompute, accumulation))
    return found


QUICK = [
    *(Layout(2, 1, 1, zero) for zero in range(4)),
    *(Layout(2, 1, 1, zero, sequence_parallel=True) for zero in range(4)),
    *(Layout(1, 2, 1, zero) for zero in range(4)),
    *(Layout(1, 1, 2, zero, accumulation=2) for zero in range(4)),
    Layout(2, 1, 1, 1, sequence_parallel=True, recompute=True, accumulation=2),
    Layout(2, 2, 1, 1),
    Layout(2, 2, 1, 3, sequence_parallel=True, recompute=True),
    Layout(2, 1, 2, 3, sequence_parallel=True),
    Layout(1, 2, 2, 2, accumulation=2),
    Layout(4, 1, 1, 1, sequence_parallel=True),
    Layout(1, 1, 4, 0),
    Layout(1, 4, 1, 3),
]
STEPS, STEPS_OF_WHOLE = 8, 2
WHOLE = [layout for layout in matrix(2) + matrix(4) if layout not in QUICK]


@pytest.fixture(scope="module")
def table(request: pytest.FixtureRequest) -> Iterator[dict[str, float]]:
    """Layout -> largest deviation of the loss; printed when the module is done."""
    rows: dict[str, float] = {}
    yield rows
    manager = request.config.pluginmanager.getplugin("capturemanager")
    with manager.global_and_fixture_disabled():
        print(f"\n\n{len(rows)} layouts, largest deviation of the loss from the golden trajectory:")
        for layout, worst in rows.items():
            print(f"  {layout:<56} {worst:.1e}")


def compare(ranks: Ranks, layout: Layout, case: tuple[str, str], table: dict[str, float], steps: int = STEPS) -> None:
    variant, name = case
    found = ranks(run, "traj_base", variant, name, layout.device_batch, layout.settings, steps)
    table[f"{variant} {layout}"] = deviation(found, "traj_base", variant, name)
    check(found, "traj_base", variant, name, steps, 2e-5)


@pytest.mark.parametrize("layout", QUICK, ids=str)
def test_losses_equal_golden(request: pytest.FixtureRequest, layout: Layout, table: dict[str, float]) -> None:
    compare(ranks_for(request, layout), layout, ZEROINIT, table)


@pytest.mark.full
@pytest.mark.parametrize("layout", WHOLE, ids=str)
def test_losses_equal_golden_at_the_whole_matrix(
    request: pytest.FixtureRequest, layout: Layout, table: dict[str, float]
) -> None:
    compare(ranks_for(request, layout), layout, ZEROINIT, table, STEPS_OF_WHOLE)


@pytest.mark.parametrize("zero", [0, 3])
@pytest.mark.parametrize("tensor", [1, 2])
def test_losses_equal_golden_from_a_random_start(
    two_ranks: Ranks, tensor: int, zero: int, table: dict[str, float]
) -> None:
    compare(two_ranks, Layout(tensor, 1, 2 // tensor, zero), RANDOM, table)


def ranks_for(request: pytest.FixtureRequest, layout: Layout) -> Ranks:
    ranks: Ranks = request.getfixturevalue({2: "two_ranks", 4: "four_ranks"}[layout.processes])
    return ranks
