"""Tasks measured while a model is trained, between two steps, by the engine of `inference/` with the live weights.

* Every rank has a model of its own for it, beside what it trains (`inference/live.py`).
* Each item is one rank's. What all marks make together is told to the monitor, on rank 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch.distributed as dist

from megatron_iberis.errors import sentence
from megatron_iberis.evaluation.asking import Asker
from megatron_iberis.evaluation.benchmark import Benchmark, Marked, Measure, measure
from megatron_iberis.evaluation.names import base_benchmarks, chat_benchmarks
from megatron_iberis.evaluation.report import summaries
from megatron_iberis.inference.live import live_decoder
from megatron_iberis.monitor.events import Figures
from megatron_iberis.monitor.monitor import Monitor
from megatron_iberis.parallel.agreement import gather_objects, raise_on_any_rank
from megatron_iberis.tokenizer import Tokenizer
from megatron_iberis.training.engine import Engine
from megatron_iberis.training.trainer import Periodic

_UNIT = 64  # items that are asked together


def live_tasks(engine: Engine, tokenizer: Tokenizer, monitor: Monitor | None) -> list[Periodic]:
    """What the recipe wants measured along the way (evaluation.tasks), to be done between steps; mostly nothing.

    InputError for an unknown task, or one whose files are not there.
    """
    settings = engine.recipe.evaluation
    if not settings.tasks:
        return []
    opened = chat_benchmarks if engine.recipe.run.stage == "chat" else base_benchmarks
    openers = opened(settings.tasks, settings.tasks_root, tokenizer, settings.tasks_items)
    tasks = LiveTasks(engine, tokenizer, [open_one() for open_one in openers.values()], monitor)
    return [Periodic(settings.tasks_every, tasks, phase="evaluation")]


@dataclass
class LiveTasks:
    """Measures benchmarks with the weights as they are; called by all ranks together."""

    engine: Engine
    tokenizer: Tokenizer
    benchmarks: Sequence[Benchmark]
    monitor: Monitor | None
    batch: int = 16

    def __call__(self, done: int) -> None:
        measures = self.measure()
        if self.monitor:
            self.monitor.tell(Figures(done, "tasks", figures(measures)))

    def measure(self) -> list[Measure]:
        """Each benchmark's score; the same on all ranks."""
        rank, ranks, marks = dist.get_rank(), dist.get_world_size(), dict[tuple[int, int], Marked]()
        asker, problem = Asker(live_decoder(self.engine), self.tokenizer, self.batch), None
        every = [(which, item) for which, each in enumerate(self.benchmarks) for item in range(len(each))]
        own = every[rank::ranks]
        try:
            for start in range(0, len(own), _UNIT):
                part = own[start : start + _UNIT]
                asked = [self.benchmarks[which].ask(item) for which, item in part]
                for (which, item), replies in zip(part, asker(asked, self.engine.heartbeat.beat), strict=True):
                    marks[which, item] = self.benchmarks[which].mark(item, replies)
        except Exception as error:  # the other ranks wait for this one's word
            problem = sentence(error) or f"evaluation failed on rank {rank} ({error!r})"
        raise_on_any_rank(problem)
        for others in gather_objects(marks):
            marks.update(others)
        of = [[marks[which, item] for item in range(len(each))] for which, each in enumerate(self.benchmarks)]
        return [measure(each, of[which]) for which, each in enumerate(self.benchmarks)]


def figures(measures: Sequence[Measure]) -> dict[str, float]:
    """By name: scores and bits per byte with their errors, and what they make together."""
    found: dict[str, float] = {}
    for each in measures:
        if each.score is not None:
            found |= {each.name: each.score, f"{each.name}/standard_error": each.error or 0.0}
        if each.bits_per_byte is not None:
            found[f"{each.name}/bits_per_byte"] = each.bits_per_byte
    for name, summary in summaries(measures).items():
        score = summary.get("v1", summary.get("score"))
        if score is not None:
            found[name] = cast(float, score)
    return found
