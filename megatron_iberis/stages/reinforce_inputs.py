"""What reinforcement learning reads: prompts with their right answers, opened, rendered and counted.

As in `inputs.py` this is done, and found to fit together, before torch is imported or anything allocated.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from megatron_iberis.config import Recipe, SourceConfig
from megatron_iberis.config.checks import require
from megatron_iberis.errors import InputError
from megatron_iberis.rollouts.prompts import Prompt, PromptOrder, Prompts, read_prompts
from megatron_iberis.stages.conversation_inputs import slice_of, usual_split, with_tokenizer
from megatron_iberis.stages.inputs import open_tokenizer, refuse_to_overwrite
from megatron_iberis.stages.start_from import Start, find_start
from megatron_iberis.tasks import open_task
from megatron_iberis.tasks.rewards import load_reward
from megatron_iberis.tokenizer import Tokenizer
from megatron_iberis.tokenizer.chat import template_hash


@dataclass(frozen=True)
class ReinforceInputs:
    """The tokenizer of a run, and its prompts. recipe: with its steps, its tokenizer and the template filled in.

    val: held-out prompts. start: None where a run is resumed.
    """

    recipe: Recipe
    tokenizer: Tokenizer
    train: Prompts
    val: Prompts
    start: Start | None


def open_prompts(recipe: Recipe) -> ReinforceInputs:
    """Opens tokenizer and prompts, and finds the weights to start from.

    Raises InputError when one is missing or broken, when the layout is none that answers can be given at, when there
    is no model to begin with or it is another, and when the run folder holds a run that would be overwritten.
    """
    refuse_to_overwrite(recipe)
    _check(recipe)
    recipe = with_tokenizer(recipe)
    recipe = replace(
        recipe,
        run=replace(recipe.run, stage="chat", template=template_hash()),
        reinforce=replace(recipe.reinforce, active=True),
    )
    tokenizer = open_tokenizer(recipe)
    start = find_start(recipe, tokenizer)
    require(
        bool(recipe.run.start_from) or recipe.run.resume,
        "run.start_from is not set: give the run or checkpoint of the chat model that is to learn from its own "
        "answers, for example --run.start_from runs/d20_sft.",
    )
    train = _prompts(recipe, tokenizer, "tasks.mixture", recipe.tasks.mixture)
    val = _prompts(recipe, tokenizer, "tasks.val", recipe.tasks.val) if recipe.tasks.val else Prompts(())
    if recipe.reinforce.val_prompts:
        val = replace(val, prompts=val.prompts[: recipe.reinforce.val_prompts])
    if recipe.train.steps == 0:
        per_epoch = prompt_order(recipe, len(train.prompts)).batches_per_epoch * recipe.reinforce.updates
        recipe = replace(recipe, train=replace(recipe.train, steps=recipe.train.epochs * per_epoch))
    return ReinforceInputs(recipe, tokenizer, train, val, start)


def prompt_order(recipe: Recipe, prompts: int) -> PromptOrder:
    """Which of so many prompts each batch of answers takes."""
    groups = recipe.train.batch_tokens // recipe.model.sequence_length // recipe.reinforce.samples
    return PromptOrder(prompts, min(groups, prompts), recipe.reinforce.refill, recipe.train.seed)


def _check(recipe: Recipe) -> None:
    parallel, settings = recipe.parallel, recipe.reinforce
    if not recipe.tasks.mixture:
        raise InputError("tasks.mixture is empty: give prompts to answer, for example --tasks.mixture gsm8k.")
    require(
        parallel.cp == 1,
        "answers are short, and reinforcement learning has no context parallelism: set parallel.cp to 1.",
    )
    require(
        parallel.zero_stage <= 2, "reinforcement learning runs at ZeRO stages 0 to 2: set parallel.zero_stage to 2."
    )
    rows = recipe.train.batch_tokens // recipe.model.sequence_length
    require(
        rows % settings.samples == 0,
        f"a step has {rows} answers (train.batch_tokens / model.sequence_length), which are no whole groups of "
        f"reinforce.samples = {settings.samples}: change one of the three.",
    )
    require(
        settings.answer_tokens < recipe.model.sequence_length,
        f"reinforce.answer_tokens {settings.answer_tokens} leaves no room for a prompt in model.sequence_length "
        f"{recipe.model.sequence_length}: lower it.",
    )


def _prompts(recipe: Recipe, tokenizer: Tokenizer, setting: str, sources: Mapping[str, SourceConfig]) -> Prompts:
    """The prompts of all sources, one after the other. InputError if none is short enough."""
    reward = load_reward(recipe.reinforce.reward)
    longest = recipe.model.sequence_length - recipe.reinforce.answer_tokens
    found: list[Prompt] = []
    too_long = 0
    for name, source in sources.items():
        if source.epochs == 0:
            continue
        split = source.split or usual_split(setting, source)
        task = open_task(source.task, split, recipe.tasks.root, **source.settings)
        rows = slice_of(f"{setting}.{name}", source, task)
        read = read_prompts(task, rows, tokenizer, reward, longest, len(found))
        found += read.prompts
        too_long += read.too_long
    if not found:
        raise InputError(
            f"{setting} has no prompt of at most {longest:,} tokens ({too_long:,} are longer): lower "
            "reinforce.answer_tokens, or give others."
        )
    return Prompts(tuple(found), too_long)
