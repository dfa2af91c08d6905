"""Which stage of the way from text to a model a recipe is of, and what tells a run from others."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from typing import Literal

from megatron_iberis.config.recipe import Recipe

Stage = Literal["base", "mid", "sft", "dpo", "rl"]

LABELS: dict[Stage, str] = {"base": "base", "mid": "mid", "sft": "SFT", "dpo": "DPO", "rl": "RL"}
"""As the columns of a table are headed."""
TITLES: dict[Stage, str] = {
    "base": "pretraining",
    "mid": "mid-training",
    "sft": "supervised finetuning (SFT)",
    "dpo": "preference optimisation (DPO)",
    "rl": "reinforcement learning (RL)",
}


def stage_of(recipe: Recipe) -> Stage:
    """Conversations of which all is trained are mid-training; where what the assistant says is, it is finetuning."""
    if recipe.reinforce.active:
        return "rl"
    if recipe.preference.data:
        return "dpo"
    if recipe.tasks.mixture:
        return "mid" if recipe.tasks.loss_on == "all" else "sft"
    return "base"


def identity_of(recipe: Recipe) -> str:
    """The same for a run and its checkpoints, wherever they lie now; another for other runs."""
    run = recipe.run
    told = [asdict(recipe.model), recipe.train.seed, stage_of(recipe), run.folder, run.start_from]
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()
