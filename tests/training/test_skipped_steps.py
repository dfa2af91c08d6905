"""A loss or gradient that is not finite changes nothing on any rank; too many in a row end the run."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from megatron_iberis.monitor.metrics import SPIKE_STEPS, SpikeWatch
from megatron_iberis.training.engine import Engine, StepResult
from tests.conftest import Corpus
from tests.support.ranks import Ranks
from tests.support.runs import log, pretrain, words
from tests.support.small_engines import (
    MODEL,
    ROWS,
    SEQUENCE_LENGTH,
    Layout,
    engine,
    own_micro_batches,
    recipe,
    start_weights,
)

CASES = [
    *((Layout(stage, rows=4), "fp32") for stage in (0, 1, 2, 3)),
    *((Layout(stage, rows=2), "bf16") for stage in (1, 2, 3)),
    (Layout(0, tp=2), "fp32"),
    (Layout(3, tp=2, sub_groups=True), "bf16"),
]


class Poison:
    """Makes a model's loss, or its gradient alone, infinite or NaN on rank 0 when told so."""

    def __init__(self, model: torch.nn.Module) -> None:
        self.what = ""
        model.register_forward_hook(self._hook)

    def _hook(self, module: Any, inputs: Any, loss: torch.Tensor) -> torch.Tensor | None:
        if torch.distributed.get_rank() == 0:
            if self.what == "loss":
                return loss * math.nan
            if self.what == "gradient":
                loss.register_hook(lambda gradient: gradient * math.inf)
        return None


def state_of(engine: Engine) -> list[torch.Tensor]:
    """Every tensor that a step changes on this rank: weights in both precisions, optimizer state."""
    state = engine.optimizer.state
    found = [flat.tensor for flat in engine.state.layout]
    for tensor in found[: len(engine.state.layout)]:
        found += [part for _, part in sorted(state[tensor].items())] if tensor in state else []
    if engine.recipe.parallel.zero_stage != 3:
        found += list(engine.model.parameters())
    return [tensor.detach().clone() for tensor in found]


def poisoned(layout: Layout, dtype: str, whats: list[str]) -> tuple[list[StepResult], list[bool], list[Any]]:
    """Runs on a rank: steps on one batch, poisoned as told. What they said, whether they changed nothing, the end."""
    running = engine(recipe(layout, dtype), start_weights(MODEL))
    poison = Poison(running.model)
    torch.manual_seed(0)
    tokens = torch.randint(0, MODEL.vocab_size, (ROWS, SEQUENCE_LENGTH + 1))
    batches = own_micro_batches(running, tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous())
    results, same = [], []
    for poison.what in whats:
        before = state_of(running)
        results.append(running.step(sum(not r.skipped for r in results), batches))
        after = state_of(running)
        same.append(len(before) == len(after) and all(map(torch.equal, before, after)))
    end = [tensor.float().numpy() for tensor in state_of(running)]
    running.deepspeed.destroy()
    return results, same, end


@pytest.mark.parametrize(("layout", "dtype"), CASES, ids=lambda case: str(case))
def test_a_step_that_is_not_finite_changes_nothing_on_any_rank(two_ranks: Ranks, layout: Layout, dtype: str) -> None:
    found = two_ranks(poisoned, layout, dtype, ["loss", "", "gradient", "loss", ""])
    clean = two_ranks(poisoned, layout, dtype, ["", ""])
    for (results, same, end), (_, _, clean_end) in zip(found, clean, strict=True):
        assert [r.skipped for r in results] == same == [True, False, True, True, False]
        assert [math.isfinite(r.loss) for r in results] == [False, True, True, False, True]
        # Adam's step count and all momenta too: what comes after is as if the bad steps had never been.
        assert all((a == b).all() for a, b in zip(end, clean_end, strict=True))


def pretrain_with_bad_steps(overrides: list[str], bad: list[int]) -> int:
    """Runs on a rank: pretrains; the loss of the steps `bad` (from 1) is not finite."""
    real = Engine.step

    def step(self: Engine, step: int, *rest: Any) -> StepResult:
        hook = self.model.register_forward_hook(lambda m, i, loss: loss * math.nan) if step + 1 in bad else None
        try:
            return real(self, step, *rest)
        finally:
            if hook:
                hook.remove()

    Engine.step = step  # type: ignore[assignment,method-assign]
    try:
        return pretrain(overrides)
    finally:
        Engine.step = real  # type: ignore[method-assign]


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_skipped_steps_are_counted_and_told(two_ranks: Ranks, tmp_path: Path, corpus: Corpus) -> None:
    overrides = words(corpus, tmp_path / "run", train__max_skipped_steps="2")
    assert two_ranks(pretrain_with_bad_steps, overrides, [3, 5]) == [0, 0]
    steps = log(tmp_path / "run", "step")
    assert [e["step"] for e in steps if e["skipped"]] == [3, 5]
    assert len(steps) == 10
    assert "step 3 was skipped: its loss is not finite" in log(tmp_path / "run", "note")[0]["text"]
    curves = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    assert [p.value for p in curves.Scalars("train/skipped_steps")] == [0, 0, 1, 1, 2, 2, 2, 2, 2, 2]


def test_too_many_bad_steps_in_a_row_end_the_run_and_name_their_samples(
    two_ranks: Ranks, tmp_path: Path, corpus: Corpus
) -> None:
    from megatron_iberis.data.order.concatenated import SampleOrder
    from megatron_iberis.data.token_files.reader import TokenFile

    folder = tmp_path / "run"
    overrides = words(corpus, folder, train__max_skipped_steps="3")
    assert two_ranks(pretrain_with_bad_steps, overrides, [2, 6, 7, 8]) == [1, 1]
    assert [e["step"] for e in log(folder, "step")] == list(range(1, 9))
    assert "3 steps in a row, up to step 8" in log(folder, "note")[-1]["text"]
    bad = lines_of(folder / "skipped_steps.jsonl")
    assert [entry["step"] for entry in bad] == [2, 6, 7, 8]
    samples = [sample for entry in bad for sample in entry["samples"]]
    assert [s["sample"] for s in samples] == [*range(8, 16), *range(40, 64)]  # 8 rows a step
    file = TokenFile(corpus.train)
    order = SampleOrder(file.num_tokens, 32, 42, shuffle=True)
    for sample in samples:
        assert sample["file"] == corpus.train
        assert sample["token"] == order.offsets(sample["sample"], 1)[0] % file.num_tokens
        first, last = (file.document_of([(sample["token"] + i) % file.num_tokens])[0] for i in (0, 32))
        assert (sample["document"], sample["last_document"]) == (first, last)


def test_spikes_are_marked_and_ordinary_noise_is_not() -> None:
    torch.manual_seed(0)
    watch = SpikeWatch()
    noisy = [4 * math.exp(-i / 50) + 3 + 0.05 * noise for i, noise in enumerate(torch.randn(400).tolist())]
    assert [watch.add(loss) for loss in noisy] == [None] * 400
    spike = watch.add(4.5)
    assert spike is not None
    assert spike > 6
    assert watch.add(math.nan) is None
    assert watch.add(3.0) is None  # one outlier does not hide that losses are as before
    assert watch.add(4.5) is not None


def test_there_are_no_spikes_before_a_mean_means_something() -> None:
    watch = SpikeWatch()
    assert [watch.add(3.0 + (i == 5)) for i in range(SPIKE_STEPS)] == [None] * SPIKE_STEPS
