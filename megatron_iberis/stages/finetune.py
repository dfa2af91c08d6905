"""Mid-training and supervised finetuning: conversations -> a chat model in a run folder.

What they differ in stands in the recipe: which tokens are trained (`tasks.loss_on`), how conversations are packed
(`data.packing`), the rates and their course.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from megatron_iberis.config import Recipe
from megatron_iberis.data.conversation_rows import ConversationRows
from megatron_iberis.data.conversations import with_total
from megatron_iberis.evaluation.live import live_tasks
from megatron_iberis.monitor.events import Figures
from megatron_iberis.monitor.monitor import Monitor
from megatron_iberis.stages.between_steps import Validate, WriteTexts
from megatron_iberis.stages.conversation_inputs import ConversationInputs
from megatron_iberis.stages.training_run import run_training, samples_of
from megatron_iberis.training.engine import Engine
from megatron_iberis.training.trainer import Periodic


@dataclass(frozen=True)
class TellRows:
    """Tells at the start of a run what became of each source's conversations."""

    rows: ConversationRows
    monitor: Monitor | None

    def __call__(self, done: int) -> None:
        if done > 0 or not self.monitor:
            return
        for name, counts in with_total(self.rows.conversations.counts).items():
            values = {what: float(count) for what, count in asdict(counts).items()}
            self.monitor.tell(Figures(done, f"conversations/{name.lstrip('/')}", values))
        if self.rows.rows < self.rows.layout.batch:
            self.monitor.note(
                f"an epoch has {self.rows.rows:,} rows and a step {self.rows.layout.batch:,}: each step trains on "
                "all of them; lower train.batch_tokens for more steps"
            )


def run(recipe: Recipe, inputs: ConversationInputs) -> int:
    """Trains on this rank; returns the exit code. As `run_training`, which see."""

    def between(engine: Engine, monitor: Monitor | None) -> Sequence[Periodic]:
        """The table of the data, held-out conversations and sample answers, as far as the recipe has them."""
        tell = TellRows(inputs.train, monitor)
        found, every = [Periodic(recipe.train.steps, tell, at_start=True)], recipe.evaluation
        if inputs.val:
            validate = Validate(engine, inputs.val, inputs.tokenizer, monitor)
            found.append(Periodic(every.every, validate, at_start=True, phase="validation"))
        if every.sample_every:
            write = WriteTexts(engine, inputs.tokenizer, monitor)
            found.append(Periodic(every.sample_every, write, phase="sampling"))
        return [*found, *live_tasks(engine, inputs.tokenizer, monitor)]

    return run_training(
        recipe,
        inputs.tokenizer,
        inputs.train,
        samples_of(inputs.train),
        inputs.token_files,
        between,
        start=inputs.start,
    )
