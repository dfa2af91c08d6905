"""Asks a model the items of benchmarks, in one process or several, and marks them; each item once, whatever happens.

This process makes the questions, keeps the journal and marks. The others have the model and nothing else: they are
given some items' questions at a time, whichever is free. An evaluation that was ended goes on where it stood.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from megatron_iberis.errors import InputError
from megatron_iberis.evaluation.benchmark import Benchmark, Marked, Measure, measure
from megatron_iberis.evaluation.journal import (
    EvaluationFolder,
    Line,
    length_of,
    line_of,
    marked_of,
    marks_of,
    prompts_of,
    replies_of,
)
from megatron_iberis.evaluation.questions import Question, Reply
from megatron_iberis.processes.workers import map_ordered

Replies = list[list[Reply]]
Ask = Callable[[Sequence[Sequence[Question]]], Replies]
Progress = Callable[[str, int, int], None]
"""Benchmark, items done, items."""


@dataclass(frozen=True)
class Model:
    """What to ask. context: tokens that it was trained on. dtype, device: as in `load_model`; batch: requests at a
    time, in each process.
    """

    checkpoint: Path
    context: int
    dtype: str | None = None
    device: str | None = None
    batch: int = 16
    processes: int = 1

    def open(self) -> Ask:
        """Loads the model; in a process of several it has its share of the cores, or a GPU of its own in turn."""
        import torch

        from megatron_iberis.evaluation.asking import Asker
        from megatron_iberis.inference.load import load_model

        device = self.device
        if self.processes > 1 and device != "cpu" and torch.cuda.is_available():
            number = next(iter(multiprocessing.current_process()._identity), 1)
            device = f"cuda:{(number - 1) % torch.cuda.device_count()}"
            torch.cuda.set_device(device)
        loaded = load_model(self.checkpoint, self.dtype, device)  # type: ignore[arg-type]
        torch.set_num_threads(max(1, torch.get_num_threads() // self.processes))
        return Asker(loaded.decoder, loaded.tokenizer, self.batch)


def run_benchmarks(
    benchmarks: Sequence[Benchmark],
    folder: EvaluationFolder,
    model: Model,
    progress: Progress = lambda name, done, of: None,
    finished: Callable[[Measure], None] = lambda measure: None,
) -> list[Measure]:
    """Asks and marks what the folder's journals don't hold. finished: is told of each benchmark that is complete."""
    lines = {each.name: folder.read(each.name) for each in benchmarks}
    for each in benchmarks:
        lines[each.name] = {item: line for item, line in lines[each.name].items() if item < len(each)}
    missing = {each.name: [i for i in range(len(each)) if i not in lines[each.name]] for each in benchmarks}
    work = list(_units(benchmarks, missing, model))
    left = {each.name: sum(unit.benchmark is each for unit in work) for each in benchmarks}
    by_name, measures = {each.name: each for each in benchmarks}, {}

    def complete(name: str) -> None:
        measures[name] = _measured(by_name[name], lines[name], model.context)
        finished(measures[name])

    for name in [each.name for each in benchmarks if not left[each.name]]:
        complete(name)
    for unit, replies in zip(work, _replies(work, model), strict=True):
        name = unit.benchmark.name
        made = [_line(unit.benchmark, item, of) for item, of in zip(unit.items, replies, strict=True)]
        folder.append(name, made)
        lines[name].update((line["item"], line) for line in made)
        progress(name, len(lines[name]), len(unit.benchmark))
        left[name] -= 1
        if not left[name]:
            complete(name)
    return [measures[each.name] for each in benchmarks]


def mark_again(
    benchmarks: Sequence[Benchmark],
    folder: EvaluationFolder,
    context: int,
    finished: Callable[[Measure], None] = lambda measure: None,
) -> list[Measure]:
    """Marks anew what was answered, without a model. InputError if items are missing or were asked something else."""
    measures = []
    for benchmark in benchmarks:
        lines = folder.read(benchmark.name)
        if missing := len(set(range(len(benchmark))) - lines.keys()):
            raise InputError(
                f"{folder.path / benchmark.name}.jsonl lacks {missing} of {len(benchmark)} items: let the evaluation "
                "go on first, without --score-only."
            )
        for item in range(len(benchmark)):
            line, asked = lines[item], [question.ids for question in benchmark.ask(item)]
            if prompts_of(line) != asked:
                raise InputError(
                    f"item {item} of {benchmark.name} was asked something else: the data has changed, evaluate into "
                    "another folder (--output)."
                )
            replies = replies_of(line)
            lines[item] = {**line, **marks_of(replies, benchmark.mark(item, replies))}
        folder.replace(benchmark.name, lines)
        measures.append(_measured(benchmark, {item: lines[item] for item in range(len(benchmark))}, context))
        finished(measures[-1])
    return measures


@dataclass(frozen=True)
class _Unit:
    """Items of a benchmark that are asked together."""

    benchmark: Benchmark
    items: Sequence[int]

    @property
    def questions(self) -> list[list[Question]]:
        return [self.benchmark.ask(item) for item in self.items]


def _units(benchmarks: Sequence[Benchmark], missing: dict[str, list[int]], model: Model) -> Iterator[_Unit]:
    """A few batches each, and so many that every process has some."""
    for benchmark in benchmarks:
        items = missing[benchmark.name]
        size = max(1, min(4 * model.batch, -(-len(items) // (2 * model.processes))))
        for start in range(0, len(items), size):
            yield _Unit(benchmark, items[start : start + size])


def _replies(work: Sequence[_Unit], model: Model) -> Iterator[Replies]:
    if not work:  # the model need not be loaded
        return
    try:
        yield from map_ordered(model.open, (unit.questions for unit in work), model.processes)
    except ChildProcessError:
        raise InputError(
            "a process with the model died (killed, or out of memory): give the same command again, with fewer "
            "--processes if memory is short; what was answered is kept."
        ) from None


def _line(benchmark: Benchmark, item: int, replies: Sequence[Reply]) -> Line:
    kept = [reply.rounded() for reply in replies]
    return line_of(item, benchmark.ask(item), kept, benchmark.mark(item, kept))


def _measured(benchmark: Benchmark, lines: dict[int, Line], context: int) -> Measure:
    ordered = [lines[item] for item in sorted(lines)]
    marks: list[Marked] = [marked_of(line) for line in ordered]
    beyond = sum(length_of(line) - 1 > context for line in ordered)  # the last token is not read
    return measure(benchmark, marks, [line.get("finish", "") for line in ordered], beyond)
