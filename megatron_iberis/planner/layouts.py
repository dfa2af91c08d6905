"""The layouts that a number of GPUs allows for a recipe."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from megatron_iberis.config import Recipe
from megatron_iberis.errors import InputError

LONG = 4096
"""Tokens of a sequence beyond which context parallelism is worth a look."""


@dataclass(frozen=True)
class Layout:
    """One way to spread a recipe. Tensor parallelism comes with sequence parallelism, which costs nothing."""

    tp: int
    cp: int
    dp: int
    zero_stage: int
    recompute: bool
    rows: int
    """train.device_batch."""
    accumulation: int
    sequence_parallel: bool = False

    @property
    def world(self) -> int:
        return self.tp * self.cp * self.dp

    @property
    def words(self) -> list[str]:
        """The command line's settings for it."""
        words = [f"--parallel.tp {self.tp}", "--parallel.sequence_parallel"] if self.tp > 1 else []
        if self.tp > 1 and not self.sequence_parallel:
            words.pop()
        words += [f"--parallel.cp {self.cp}"] if self.cp > 1 else []
        words += [f"--parallel.zero_stage {self.zero_stage}"]
        words += ["--parallel.recompute"] if self.recompute else []
        return [*words, f"--train.device_batch {self.rows}"]


def recipe_at(recipe: Recipe, layout: Layout) -> Recipe:
    """The recipe with that layout."""
    parallel = replace(
        recipe.parallel,
        tp=layout.tp,
        cp=layout.cp,
        sequence_parallel=layout.sequence_parallel,
        recompute=layout.recompute,
        zero_stage=layout.zero_stage,  # type: ignore[arg-type]
    )
    return replace(recipe, parallel=parallel, train=replace(recipe.train, device_batch=layout.rows))


def own_layout(recipe: Recipe, gpus: int) -> Layout | None:
    """The recipe's own, where so many GPUs can have it and it says how many rows a micro-batch has."""
    parallel, train = recipe.parallel, recipe.train
    if not train.device_batch:
        return None
    try:
        parallel.check_processes(gpus)
        dp = gpus // (parallel.tp * parallel.cp)
        accumulation = train.accumulation(recipe.model, dp)
    except InputError:
        return None
    return Layout(
        parallel.tp,
        parallel.cp,
        dp,
        parallel.zero_stage,
        parallel.recompute,
        train.device_batch,
        accumulation,
        parallel.sequence_parallel and parallel.tp > 1,
    )


def layouts_of(recipe: Recipe, gpus: int, per_node: int) -> list[Layout]:
    """All that the sizes allow, tensor and context groups inside a node; micro-batches of 1, 2, 4, ... rows, and the
    recipe's own. Raises InputError when there is none.
    """
    found = list(dict.fromkeys(_layouts(recipe, gpus, per_node)))
    if not found:
        rows = recipe.train.batch_tokens // recipe.model.sequence_length
        raise InputError(
            f"{gpus} GPUs cannot share a step of {rows} rows of {recipe.model.sequence_length} tokens: take a number "
            f"of GPUs that divides {rows}, or set train.batch_tokens to a multiple of "
            f"{gpus * recipe.model.sequence_length}."
        )
    return found


def _layouts(recipe: Recipe, gpus: int, per_node: int) -> Iterator[Layout]:
    own = own_layout(recipe, gpus)
    if own:
        yield own
    model, node = recipe.model, min(per_node, gpus)
    rows = recipe.train.batch_tokens // model.sequence_length
    stages = (1, 2, 3) if recipe.train.dtype == "bf16" else (0, 1, 2, 3)
    for tp in _divisors(node):
        if model.heads % tp or model.mlp_hidden % tp or gpus % tp:
            continue
        crowded = gpus // tp > rows
        for cp in _divisors(node // tp):
            chunk = model.sequence_length // cp
            worth = cp == 1 or cp == recipe.parallel.cp or crowded or model.sequence_length > LONG
            if not worth or gpus % (tp * cp) or model.sequence_length % (cp * tp) or chunk < model.kernel - 1:
                continue
            dp = gpus // (tp * cp)
            if rows % dp:
                continue
            for device_batch in micro_batches(rows // dp, recipe.train.device_batch):
                for stage in stages:
                    for recompute in (False, True):
                        accumulation = rows // dp // device_batch
                        yield Layout(tp, cp, dp, stage, recompute, device_batch, accumulation, tp > 1)


def micro_batches(rows: int, own: int = 0) -> list[int]:
    """Sizes for a rank that has so many rows of a step: powers of two, and its own where that is one."""
    powers = [2**i for i in range(9) if rows % 2**i == 0]
    return sorted({*powers, *([own] if own and rows % own == 0 else [])})


def _divisors(number: int) -> list[int]:
    return [d for d in range(1, number + 1) if number % d == 0]
