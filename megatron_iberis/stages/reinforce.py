"""Reinforcement learning: prompts whose answers can be marked -> a chat model that answers them better.

Between two steps the model answers prompts itself (`rollouts/`); what is worth more than its group's mean becomes
likelier (`training/reinforce.py`).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch.distributed as dist

from megatron_iberis.config import Recipe
from megatron_iberis.data.batches import Batch
from megatron_iberis.errors import InputError
from megatron_iberis.evaluation.live import live_tasks
from megatron_iberis.inference.live import live_decoder
from megatron_iberis.monitor.events import Figures, Samples, SampleText
from megatron_iberis.monitor.monitor import Monitor
from megatron_iberis.parallel.agreement import gather_objects
from megatron_iberis.rollouts.answering import Answering
from megatron_iberis.rollouts.answers import Answer, Group, load_trained_groups, save_groups
from megatron_iberis.rollouts.batches import batches_of_groups
from megatron_iberis.rollouts.difficulty import promising
from megatron_iberis.rollouts.prompts import Prompt
from megatron_iberis.run_folder import RunFolder
from megatron_iberis.stages.reinforce_inputs import ReinforceInputs, prompt_order
from megatron_iberis.stages.training_run import run_training
from megatron_iberis.training.engine import Engine
from megatron_iberis.training.reinforce import PolicyGradient
from megatron_iberis.training.trainer import Periodic, StepBatches, batch_plan


def run(recipe: Recipe, inputs: ReinforceInputs) -> int:
    """Trains on this rank; returns the exit code. As `run_training`, which see."""
    settings = recipe.reinforce
    clip = (settings.clip, settings.clip_high) if settings.updates > 1 else None
    objective = PolicyGradient(settings.temperature, clip)

    def between(engine: Engine, monitor: Monitor | None) -> Sequence[Periodic]:
        """Held-out prompts, and whatever else the recipe wants measured."""
        found, every = [], recipe.evaluation.every
        if inputs.val.prompts:
            answer = AnswerHeldOut(engine, inputs, monitor)
            found.append(Periodic(every, answer, at_start=True, phase="validation"))
        return [*found, *live_tasks(engine, inputs.tokenizer, monitor)]

    def feed(engine: Engine, monitor: Monitor | None, first_step: int) -> StepBatches:
        if settings.filter_samples:
            seed, path = recipe.train.seed, RunFolder(recipe.run.folder).difficulty
            fresh = (lambda: answering(engine, inputs)) if first_step == 0 else None
            kept = promising(path, inputs.train.prompts, settings, seed, fresh)
            if monitor:
                monitor.note(
                    f"{len(kept):,} of {len(inputs.train.prompts):,} prompts are neither too hard nor too easy"
                )
            return RollOuts(engine, inputs, monitor, [inputs.train.prompts[place] for place in kept])
        return RollOuts(engine, inputs, monitor, inputs.train.prompts)

    return run_training(recipe, inputs.tokenizer, inputs.train, feed, [], between, objective, inputs.start)


def answering(engine: Engine, inputs: ReinforceInputs) -> Answering:
    """What answers with the weights as they are now; called by all ranks together."""
    return Answering(live_decoder(engine), inputs.tokenizer, engine.recipe.reinforce, engine.heartbeat.beat)


@dataclass
class RollOuts:
    """Makes a step's batches: has prompts answered, and others in place of those of which nothing can be learned."""

    engine: Engine
    inputs: ReinforceInputs
    monitor: Monitor | None
    prompts: Sequence[Prompt]
    _groups: list[Group] = field(default_factory=list)
    _batch: int = -1

    def __call__(self, step: int) -> list[Batch]:
        """This rank's micro-batches of a step."""
        recipe, groups = self.engine.recipe, self.engine.groups
        batch, again = divmod(step, recipe.reinforce.updates)
        if again == 0:
            self._groups, self._batch = self._rolled_out(batch, step), batch
        elif batch != self._batch:  # the run was resumed in the middle of it
            self._groups, self._batch = self._found_again(batch), batch
        return batches_of_groups(self._groups, batch_plan(recipe, groups), groups.tp_size)

    def _rolled_out(self, batch: int, step: int) -> list[Group]:
        """The groups to train on, as many as a batch has where they can be found."""
        recipe = self.engine.recipe
        self.engine.heartbeat.beat("answering", step + 1)
        order = prompt_order(recipe, len(self.prompts))
        answer, seed = answering(self.engine, self.inputs), f"{recipe.train.seed} batch {batch}"
        numbers, spare = order.taken(batch), order.spare(batch)
        groups: list[Group] = []
        telling: list[Group] = []
        while numbers:
            new = answer([self.prompts[number] for number in numbers], recipe.reinforce.samples, seed)
            groups += new
            telling += [group for group in new if group.tells]
            missing = order.groups - len(telling)
            numbers, spare = spare[:missing], spare[missing:]
        if dist.get_rank() == 0:
            where = {prompt.number: prompt.where for prompt in self.prompts}
            save_groups(RunFolder(recipe.run.folder).rollouts / file_name(batch), groups, telling, where)
        if self.monitor:
            self._tell(step, groups, telling)
        return telling

    def _tell(self, step: int, groups: Sequence[Group], telling: Sequence[Group]) -> None:
        assert self.monitor
        answers, every = [answer for group in groups for answer in group.answers], self.engine.recipe.evaluation
        values = health(answers) | {
            "groups": float(len(groups)),
            "groups_trained_on": float(len(telling)),
            "without_variance": sum(not group.tells for group in groups) / len(groups),
        }
        self.monitor.tell(Figures(step + 1, "answers", values))
        if not telling:
            self.monitor.note(
                f"step {step + 1} changes nothing: all answers of each of its {len(groups)} groups are worth the same"
            )
        if every.sample_every and step % every.sample_every == 0:
            asked = {prompt.number: prompt for prompt in self.prompts}
            texts = [SampleText(asked[group.prompt].question, group.answers[0].text) for group in groups[:3]]
            self.monitor.tell(Samples(step, tuple(texts)))

    def _found_again(self, batch: int) -> list[Group]:
        path = RunFolder(self.engine.recipe.run.folder).rollouts / file_name(batch)
        found = load_trained_groups(path) if dist.get_rank() == 0 and path.is_file() else None
        groups = gather_objects(found)[0]
        if groups is None:
            raise InputError(f"{path} is gone, which holds the answers that this step trains on: put it back.")
        return groups


@dataclass
class AnswerHeldOut:
    """Has held-out prompts answered several times each: the reward, and pass@k for k = 1, 2, 4, ..."""

    engine: Engine
    inputs: ReinforceInputs
    monitor: Monitor | None

    def __call__(self, done: int) -> None:
        recipe = self.engine.recipe
        samples, seed = recipe.reinforce.val_samples, f"{recipe.train.seed} held out"
        groups = answering(self.engine, self.inputs)(self.inputs.val.prompts, samples, seed)
        if self.monitor:
            answers = [answer for group in groups for answer in group.answers]
            means = [group.mean for group in groups]
            error = statistics.stdev(means) / math.sqrt(len(means)) if len(means) > 1 else 0.0
            values = health(answers) | {"reward_error": error} | passes(groups)
            self.monitor.tell(Figures(done, "held_out", values))


def health(answers: Sequence[Answer]) -> dict[str, float]:
    """Means over answers: reward, length in tokens, and the share that was cut."""
    return {
        "reward": statistics.fmean(answer.reward for answer in answers),
        "length": statistics.fmean(len(answer.ids) for answer in answers),
        "cut": statistics.fmean(answer.finish == "length" for answer in answers),
    }


def passes(groups: Sequence[Group]) -> dict[str, float]:
    """pass@k: how likely one of k answers to a prompt is right (worth 1 or more), a mean over prompts.

    Without bias, from n answers of which c are right: 1 - C(n - c, k) / C(n, k) (Chen et al., arXiv 2107.03374).
    """
    samples = min(len(group.answers) for group in groups)
    found, k = {}, 1
    while k <= samples:
        shares = []
        for group in groups:
            n, right = len(group.answers), sum(answer.reward >= 1 for answer in group.answers)
            shares.append(1 - math.comb(n - right, k) / math.comb(n, k))
        found[f"pass@{k}"] = statistics.fmean(shares)
        k *= 2
    return found


def file_name(batch: int) -> str:
    """Of a batch's answers in a run's rollouts/."""
    return f"batch-{batch:08d}.jsonl"
