"""What mid-training and finetuning read: the conversations of a mixture, opened, rendered and counted.

As in `inputs.py` this is done, and found to fit together, before torch is imported or anything allocated.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from megatron_iberis.command import show_notices
from megatron_iberis.config import Recipe, SourceConfig
from megatron_iberis.data.conversation_rows import ConversationLayout, ConversationRows
from megatron_iberis.data.conversations import Rendering, Source, render_mixture
from megatron_iberis.data.token_files.reader import TokenFile
from megatron_iberis.errors import InputError
from megatron_iberis.run_folder import RunFolder
from megatron_iberis.stages.inputs import open_tokenizer, refuse_to_overwrite
from megatron_iberis.stages.start_from import Start, find_start, tokenizer_of
from megatron_iberis.tasks import Task, open_task
from megatron_iberis.tokenizer import Tokenizer
from megatron_iberis.tokenizer.chat import template_hash


@dataclass(frozen=True)
class ConversationInputs:
    """The tokenizer of a run, and its rows. recipe: with its steps, its tokenizer and the template filled in.

    val: held-out rows by language.
    """

    recipe: Recipe
    tokenizer: Tokenizer
    train: ConversationRows
    val: Mapping[str, ConversationRows]
    start: Start | None

    @property
    def token_files(self) -> list[TokenFile]:
        """All that are read."""
        return [self.train.file, *(rows.file for rows in self.val.values())]


def open_conversations(recipe: Recipe) -> ConversationInputs:
    """Opens tokenizer and tasks, renders the conversations, and finds the weights to start from.

    Raises InputError when one is missing or no conversation, when nothing could be learned, when the weights are
    another model's, and when the run folder holds a run that would be overwritten.
    """
    refuse_to_overwrite(recipe)
    recipe = with_tokenizer(recipe)
    recipe = replace(recipe, run=replace(recipe.run, stage="chat", template=template_hash()))
    tokenizer = open_tokenizer(recipe)
    start = find_start(recipe, tokenizer)
    train = open_rows(recipe, tokenizer)
    val = _open_held_out(recipe, tokenizer)
    if recipe.train.steps == 0:
        steps = recipe.train.epochs * train.steps_per_epoch
        recipe = replace(recipe, train=replace(recipe.train, steps=steps))
    return ConversationInputs(recipe, tokenizer, train, val, start)


def open_rows(recipe: Recipe, tokenizer: Tokenizer) -> ConversationRows:
    """The rows to train on. Raises InputError as `open_conversations` does."""
    batch = recipe.train.batch_tokens // recipe.model.sequence_length
    return _rows(recipe, tokenizer, "tasks.mixture", open_sources(recipe), batch)


def open_sources(recipe: Recipe) -> list[Source]:
    """What the mixture is made of. InputError if that is nothing, or one of them is missing."""
    if not recipe.tasks.mixture:
        raise InputError(
            "tasks.mixture is empty: give conversations to train on, for example --tasks.mixture mine.jsonl."
        )
    return [source for source, _ in _sources("tasks.mixture", recipe.tasks.mixture, recipe.tasks.root)]


def with_tokenizer(recipe: Recipe) -> Recipe:
    """The same with the tokenizer of the run that is resumed or the model to begin with, unless another is given."""
    if recipe.data.tokenizer:
        return recipe
    own = RunFolder(recipe.run.folder).tokenizer
    if recipe.run.resume and own.is_dir():
        tokenizer = own
    elif recipe.run.start_from:
        tokenizer = tokenizer_of(Path(recipe.run.start_from))
    else:
        raise InputError(
            "run.start_from is not set: give the run or checkpoint whose model is to learn this, for example "
            "--run.start_from runs/d20."
        )
    return replace(recipe, data=replace(recipe.data, tokenizer=str(tokenizer)))


def _open_held_out(recipe: Recipe, tokenizer: Tokenizer) -> dict[str, ConversationRows]:
    by_language: dict[str, list[Source]] = defaultdict(list)
    for source, language in _sources("tasks.val", recipe.tasks.val, recipe.tasks.root):
        by_language[language].append(source)
    return {
        language: _rows(recipe, tokenizer, f"tasks.val ({language})", sources, 1)
        for language, sources in sorted(by_language.items())
    }


def _rows(recipe: Recipe, tokenizer: Tokenizer, setting: str, sources: list[Source], batch: int) -> ConversationRows:
    data, tasks = recipe.data, recipe.tasks
    if data.packing == "megatron":
        raise InputError('data.packing "megatron" is for token files: set it to "best_fit" or "concat".')
    layout = ConversationLayout(
        recipe.model.sequence_length, data.packing, data.document_mask, tasks.loss_on, recipe.train.seed, batch
    )
    how = Rendering(layout.row_tokens, tasks.loss_on, recipe.train.seed)
    rendered = render_mixture(setting, sources, tokenizer, how, tasks.cache, lambda text: show_notices([text]))
    return ConversationRows(rendered, layout)


def _sources(setting: str, mixture: Mapping[str, SourceConfig], root: str) -> list[tuple[Source, str]]:
    """The sources of a mixture, opened, each with its language."""
    found: list[tuple[Source, str]] = []
    for name, source in mixture.items():
        if source.epochs > 0:
            task = open_task(source.task, source.split or usual_split(setting, source), root, **source.settings)
            rows = slice_of(f"{setting}.{name}", source, task)
            found.append((Source(name, task, rows, source.epochs), task.language))
    return found


def usual_split(setting: str, source: SourceConfig) -> str:
    """Never what a task is evaluated on, to train on; a file that is named to be held out is held out whole."""
    if setting == "tasks.mixture":
        return "train"
    return "" if Path(source.task).suffix else "test"


def slice_of(setting: str, source: SourceConfig, task: Task) -> range:
    """The rows that are asked for. Raises InputError when there are not so many."""
    end = source.start + source.rows if source.rows else len(task)
    if end > len(task) or source.start >= end:
        raise InputError(
            f"{setting} asks for rows {source.start:,} to {max(end, source.start + 1):,} and {source.task} has "
            f"{len(task):,}: lower {setting}.{'rows' if source.start < len(task) else 'start'}."
        )
    return range(source.start, end)
