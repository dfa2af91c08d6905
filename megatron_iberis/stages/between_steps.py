"""What a training stage does between steps: validation, sample texts, checkpoints. Each is called by all ranks."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import torch

from megatron_iberis.checkpoint.save import CheckpointWriter
from megatron_iberis.data.rows import ConcatSource
from megatron_iberis.evaluation.bits_per_byte import evaluate
from megatron_iberis.inference.exact import continue_prompt
from megatron_iberis.monitor.events import Samples, SampleText, Validation
from megatron_iberis.monitor.monitor import Monitor
from megatron_iberis.tokenizer import Tokenizer
from megatron_iberis.training.engine import Engine


@dataclass
class Validate:
    """Bits per byte on held-out text."""

    engine: Engine
    source: ConcatSource
    tokenizer: Tokenizer
    monitor: Monitor | None

    def __call__(self, done: int) -> None:
        started, recipe = time.monotonic(), self.engine.recipe
        wanted = max(1, recipe.evaluation.tokens // recipe.model.sequence_length)
        token_bytes = torch.zeros(recipe.model.vocab_size, dtype=torch.int64)
        token_bytes[: self.tokenizer.vocab_size] = torch.from_numpy(self.tokenizer.token_bytes()).long()
        self.engine.deepspeed.eval()
        loss = evaluate(
            self.engine.deepspeed,
            self.source,
            min(wanted, self.source.order.samples_per_epoch),
            recipe.train.device_batch,
            token_bytes,
            self.engine.groups,
            self.engine.device,
        )
        if self.monitor:
            seconds = time.monotonic() - started
            self.monitor.tell(Validation(done, loss.bits_per_byte, loss.nats_per_token, seconds))


@dataclass
class WriteTexts:
    """Has the model continue the recipe's prompts greedily, to be read."""

    engine: Engine
    tokenizer: Tokenizer
    monitor: Monitor | None

    def __call__(self, done: int) -> None:
        recipe, texts = self.engine.recipe, []
        self.engine.deepspeed.eval()
        for prompt in recipe.evaluation.sample_prompts:
            ids = continue_prompt(
                self.engine.deepspeed,
                [self.tokenizer.bos_id, *self.tokenizer.encode(prompt)],
                recipe.evaluation.sample_tokens,
                self.engine.device,
                sequence_length=recipe.model.sequence_length,
                multiple=self.engine.groups.tp_size * self.engine.groups.cp_size * recipe.model.kernel,
            )
            text = self.tokenizer.decode(i for i in ids if i < self.tokenizer.vocab_size)
            texts.append(SampleText(prompt, text))
        if self.monitor:
            self.monitor.tell(Samples(done, tuple(texts)))


@dataclass
class Save:
    """Writes checkpoints while the run trains. One that can't be written is told of: the run is worth more."""

    writer: CheckpointWriter
    monitor: Monitor | None
    failures: list[str] = field(default_factory=list)

    def __call__(self, done: int) -> None:
        waited = self.writer.save(done)
        if waited and self.monitor:
            self.monitor.note(f"the checkpoint after step {done} waited {waited:.1f} s for the one before it")

    def tell(self, done: int) -> None:
        """Tells of the saves that have ended since the last call."""
        for outcome in self.writer.outcomes():
            said = f"checkpoint {outcome.folder} ({outcome.seconds:.1f} s)"
            if outcome.problem:
                said = f"the checkpoint after step {outcome.step} was not saved: {outcome.problem}"
                self.failures.append(said)
            for note in (said, *outcome.notes):
                if self.monitor:
                    self.monitor.note(note)

    def finish(self) -> None:
        """Waits for the save in flight."""
        self.writer.finish()
        self.tell(0)
