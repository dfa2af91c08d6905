"""CORE: the tasks of an evaluation bundle (core.yaml, eval_meta_data.csv, eval_data/), as nanochat scores them.

* Multiple choice: the option whose tokens, from the first where the options differ, have the least mean loss.
* Schema: the context after which the common end has the least mean loss. Language modelling: each token of the
  continuation must be the likeliest one.
* Few-shot: the first number listed. Rows are shuffled by Random(1337); examples come from the others by
  Random(1234 + item). With a limit, they come from the first rows that are left, as long as those suffice.
* A token is scored for every option, also where one is the beginning of another or a piece spans the join of context
  and continuation: upstream's mean over no tokens is NaN there, and the first option wins.

The baselines of the bundle's csv are DCLM's of 2024, "v1"; in 2025 it corrected some, "v2".
"""

from __future__ import annotations

import csv
import json
import math
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from megatron_iberis.errors import InputError
from megatron_iberis.evaluation.benchmark import Marked, Measure
from megatron_iberis.evaluation.questions import Likelihood, Question, Reply, shared_beginning
from megatron_iberis.tokenizer import Tokenizer

TASKS_OF_CORE = 22
CONFIG, BASELINES, DATA = "core.yaml", "eval_meta_data.csv", "eval_data"
_FOLDERS = ("", "core_bundle", "eval_bundle", "eval/core_bundle", "eval/eval_bundle")
# Where DCLM's baselines differ since September 2025: a majority, and numbers of options that had been miscounted.
_V2 = {"commonsense_qa": 0.403, "bigbench_language_identification": 0.25, "agi_eval_lsat_ar": 0.25}
_FIELDS = {
    "multiple_choice": ("query", "choices", "gold"),
    "schema": ("context_options", "continuation", "gold"),
    "language_modeling": ("context", "continuation"),
}
_Row = Mapping[str, Any]


class CoreTask:
    """One of CORE's tasks as a `Benchmark`. baseline: v1's; chance: v2's. limit: rows at most, 0: all."""

    def __init__(
        self,
        name: str,
        rows: Sequence[_Row],
        kind: str,
        shots: int,
        baseline: float,
        tokenizer: Tokenizer,
        delimiter: str = " ",
        limit: int = 0,
    ) -> None:
        rows = list(rows)
        random.Random(1337).shuffle(rows)
        kept = rows[:limit] if limit else rows
        self.name, self.baseline, self.chance = name, baseline, _V2.get(name, baseline)
        self.settings: Mapping[str, Any] = {"shots": shots, "kind": kind, "baseline_v1": baseline}
        self._rows, self._kind, self._shots, self._delimiter = kept, kind, shots, delimiter
        self._pool = kept if len(kept) > shots else rows
        self._tokenizer = tokenizer
        if len(self._pool) <= shots:
            raise InputError(f"{name} has {len(rows)} rows and wants {shots} others as examples: give it more rows.")

    def __len__(self) -> int:
        return len(self._rows)

    def ask(self, index: int) -> list[Question]:
        row, before = self._rows[index], self._examples(index)
        if self._kind == "multiple_choice":
            return _from_difference([self._ids(before + self._text(row, i)) for i in range(len(row["choices"]))])
        if self._kind == "schema":
            texts = [self._text(row, i) for i in range(len(row["context_options"]))]
            return _common_end([self._ids(before + text) for text in texts])
        without = self._ids((before + row["context"].strip() + self._delimiter).strip())
        return [_after_join(without, self._ids(before + self._text(row, 0)))]

    def mark(self, index: int, replies: Sequence[Reply]) -> Marked:
        row = self._rows[index]
        if self._kind == "language_modeling":
            right = replies[0].greedy
            return Marked(float(right), row["continuation"] if right else None, row["continuation"])
        means = [reply.mean for reply in replies]
        best = means.index(max(means))
        options = row["choices" if self._kind == "multiple_choice" else "context_options"]
        return Marked(float(best == row["gold"]), options[best], options[row["gold"]])

    def _examples(self, index: int) -> str:
        """The examples before an item, a blank line after each."""
        others = [i for i in range(len(self._pool)) if i != index]
        drawn = random.Random(1234 + index).sample(others, self._shots)
        return "".join(self._text(self._pool[i]) + "\n\n" for i in drawn)

    def _text(self, row: _Row, option: int | None = None) -> str:
        """A row with one of its options, by default the right one."""
        if self._kind == "multiple_choice":
            return f"{row['query']}{self._delimiter}{row['choices'][row['gold'] if option is None else option]}"
        if self._kind == "schema":
            context = row["context_options"][row["gold"] if option is None else option]
            return f"{context}{self._delimiter}{row['continuation']}"
        return f"{row['context'].strip()}{self._delimiter}{row['continuation']}"

    def _ids(self, text: str) -> tuple[int, ...]:
        return self._tokenizer.bos_id, *self._tokenizer.encode(text)


def _from_difference(sequences: list[tuple[int, ...]]) -> list[Question]:
    """Each sequence from where they differ, at least its last token."""
    start = min(shared_beginning(sequences), min(map(len, sequences)) - 1)
    return [Likelihood(ids, start) for ids in sequences]


def _common_end(sequences: list[tuple[int, ...]]) -> list[Question]:
    """The tokens that all end with, at least one and never the first."""
    count = shared_beginning([ids[::-1] for ids in sequences])
    count = max(1, min(count, min(map(len, sequences)) - 1))
    return [Likelihood(ids, len(ids) - count) for ids in sequences]


def _after_join(without: tuple[int, ...], ids: tuple[int, ...]) -> Likelihood:
    """The tokens behind what both begin with, at least one: one that spans the join counts."""
    return Likelihood(ids, min(shared_beginning([without, ids]), len(ids) - 1))


def find_bundle(root: str) -> Path:
    """The bundle's folder below `root`, or `root` itself. InputError if there is none."""
    for name in _FOLDERS:
        if (Path(root) / name / CONFIG).is_file():
            return Path(root) / name
    raise InputError(
        f"there is no CORE bundle in {root or 'the current folder'} ({CONFIG}, {BASELINES}, {DATA}/): give the "
        "folder that holds it (--root), or leave CORE out (--tasks)."
    )


def open_core(root: str, tokenizer: Tokenizer, limit: int = 0) -> dict[str, Callable[[], CoreTask]]:
    """What opens each of the bundle's tasks, by name, in its order."""
    import yaml

    folder = find_bundle(root)
    try:
        listed = yaml.safe_load((folder / CONFIG).read_text(encoding="utf-8"))["icl_tasks"]
        tasks = {str(task["label"]): task for task in listed}
    except (yaml.YAMLError, KeyError, TypeError, UnicodeDecodeError):
        raise InputError(f"{folder / CONFIG} is no list of CORE's tasks: copy the bundle again.") from None
    baselines = _baselines(folder / BASELINES)
    if missing := next((name for name in tasks if name not in baselines), None):
        raise InputError(f"{folder / BASELINES} has no baseline of {missing}: copy the bundle again.")

    def opener(name: str) -> Callable[[], CoreTask]:
        task = tasks[name]
        kind, path = str(task["icl_task_type"]), folder / DATA / str(task["dataset_uri"])
        delimiter = str(task.get("continuation_delimiter", " "))
        shots = int(task["num_fewshot"][0])
        return lambda: CoreTask(name, _rows(path, kind), kind, shots, baselines[name], tokenizer, delimiter, limit)

    return {name: opener(name) for name in tasks}


def _baselines(path: Path) -> dict[str, float]:
    """Of each task, from 0 to 1."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    try:
        return {row["Eval Task"]: float(row["Random baseline"]) / 100 for row in rows}
    except (KeyError, TypeError, ValueError):
        raise InputError(
            f"{path} is no table of baselines (Eval Task, Random baseline): copy the bundle again."
        ) from None


def _rows(path: Path, kind: str) -> list[_Row]:
    if kind not in _FIELDS:
        raise InputError(f"{path.name} has the type {kind!r}: only {', '.join(_FIELDS)} are known.")
    rows = []
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        try:
            row = json.loads(line)
            good = isinstance(row, dict) and all(name in row for name in _FIELDS[kind])
        except ValueError:
            good = False
        if not good:
            raise InputError(f"{path}:{number} is no row with {', '.join(_FIELDS[kind])}: copy the bundle again.")
        rows.append(row)
    return rows


def summarise_core(measures: Sequence[Measure]) -> dict[str, Any]:
    """CORE by both sets of baselines, with their standard errors; empty without a task of it."""
    tasks = [each for each in measures if "baseline_v1" in each.settings and each.score is not None]
    if not tasks:
        return {}
    found: dict[str, Any] = {"name": f"CORE v1, {len(tasks)} of {TASKS_OF_CORE} tasks", "tasks": len(tasks)}
    for version, base in (("v1", lambda m: m.settings["baseline_v1"]), ("v2", lambda m: m.chance)):
        spread = math.sqrt(sum(((each.error or 0) / (1 - base(each))) ** 2 for each in tasks))
        found[version] = sum(each.centred(base(each)) for each in tasks) / len(tasks)
        found[f"{version}_standard_error"] = spread / len(tasks)
    return found
