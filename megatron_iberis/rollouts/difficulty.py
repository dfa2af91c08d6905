"""Which prompts there is something to learn from: those that are answered rightly now and then.

A prompt that is never answered rightly, or always, makes groups without a signal. All are answered some times before
the first step; what came of it is kept as a line a prompt, and read when the run is resumed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import torch.distributed as dist

from megatron_iberis.config import ReinforceConfig
from megatron_iberis.errors import InputError
from megatron_iberis.parallel.agreement import gather_objects, raise_on_any_rank
from megatron_iberis.rollouts.answering import Answering
from megatron_iberis.rollouts.prompts import Prompt
from megatron_iberis.storage.atomic import json_line, write_atomic


def promising(
    path: Path,
    prompts: Sequence[Prompt],
    settings: ReinforceConfig,
    seed: int,
    answering: Callable[[], Answering] | None,
) -> list[int]:
    """The places among `prompts` of those to be trained on; called by all ranks together.

    path: the file of what came of it. answering: makes what answers with the weights that the run begins with; None:
    it has begun, and the file is read. InputError if none is left, or the file is of other prompts or is gone.
    """
    if answering is None:
        if not gather_objects(path.is_file())[0]:
            raise InputError(
                f"{path} is gone, which tells the prompts that this run is trained on: put it back, or begin anew."
            )
    else:  # also where there is one: it may be of a run that began with other weights and came to nothing
        groups = answering()(prompts, settings.filter_samples, f"{seed} difficulty")
        lines = [
            {"prompt": prompt.number, "where": prompt.where, "samples": settings.filter_samples, "mean": group.mean}
            for prompt, group in zip(prompts, groups, strict=True)
        ]
        if dist.get_rank() == 0:
            write_atomic(path, b"".join(json_line(line) for line in lines))
    means, problem = None, None
    if dist.get_rank() == 0:
        records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        if [(r["prompt"], r["where"]) for r in records] != [(p.number, p.where) for p in prompts]:
            problem = f"{path} is of other prompts: give those that the run began with, or begin anew."
        means = [record["mean"] for record in records]
    raise_on_any_rank(problem)
    means = gather_objects(means)[0]
    assert means is not None
    found = [place for place, mean in enumerate(means) if 0 < mean <= settings.filter_most]
    if not found:
        raise InputError(
            f"none of {len(prompts):,} prompts was answered rightly at least once and not always, in "
            f"{settings.filter_samples} answers each ({path}): give easier ones, or raise reinforce.filter_samples."
        )
    return found
