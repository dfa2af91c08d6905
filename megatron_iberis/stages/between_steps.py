"""What a training stage does between steps: validation, sample texts, checkpoints. Each is called by all ranks."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Protocol

import torch

from megatron_iberis.checkpoint.save import CheckpointWriter
from megatron_iberis.data.rows import SampleSource
from megatron_iberis.evaluation.bits_per_byte import TextLoss, evaluate
from megatron_iberis.inference.exact import continue_prompt
from megatron_iberis.monitor.events import Figures, Samples, SampleText, Validation
from megatron_iberis.monitor.monitor import Monitor
from megatron_iberis.tokenizer import Tokenizer
from megatron_iberis.tokenizer.chat import ASSISTANT_END, render_for_completion
from megatron_iberis.training.engine import Engine


class HeldOut(SampleSource, Protocol):
    """Samples to be looked at in their order, from the first on."""

    @property
    def samples_per_epoch(self) -> int: ...


@dataclass
class Validate:
    """Bits per byte on held-out text: of all sources, and where they are several of each, by its name."""

    engine: Engine
    sources: Mapping[str, HeldOut]
    tokenizer: Tokenizer
    monitor: Monitor | None

    def __call__(self, done: int) -> None:
        started, recipe = time.monotonic(), self.engine.recipe
        token_bytes = torch.zeros(recipe.model.vocab_size, dtype=torch.int64)
        token_bytes[: self.tokenizer.vocab_size] = torch.from_numpy(self.tokenizer.token_bytes()).long()
        self.engine.deepspeed.eval()
        losses = {name: self._loss(source, token_bytes) for name, source in self.sources.items()}
        whole = sum(losses.values(), TextLoss(0.0, 0, 0))
        if not self.monitor or not whole.bytes:
            return
        self.monitor.tell(Validation(done, whole.bits_per_byte, whole.nats_per_token, time.monotonic() - started))
        if len(losses) > 1:
            named = {name: loss for name, loss in losses.items() if loss.bytes}
            values = {f"bits_per_byte_{name}": loss.bits_per_byte for name, loss in named.items()}
            values |= {f"loss_{name}": loss.nats_per_token for name, loss in named.items()}
            self.monitor.tell(Figures(done, "validation", values))

    def _loss(self, source: HeldOut, token_bytes: torch.Tensor) -> TextLoss:
        engine, recipe = self.engine, self.engine.recipe
        wanted = max(1, recipe.evaluation.tokens // recipe.model.sequence_length)
        samples, rows = min(wanted, source.samples_per_epoch), recipe.train.device_batch
        return evaluate(engine.deepspeed, source, samples, rows, token_bytes, engine.groups, engine.device)


@dataclass
class WriteTexts:
    """Has the model continue the recipe's prompts greedily, to be read; or answer them, as a chat model does."""

    engine: Engine
    tokenizer: Tokenizer
    monitor: Monitor | None

    def __call__(self, done: int) -> None:
        recipe, texts = self.engine.recipe, []
        self.engine.deepspeed.eval()
        for prompt in recipe.evaluation.sample_prompts:
            ids = continue_prompt(
                self.engine.deepspeed,
                self._prompt_ids(prompt),
                recipe.evaluation.sample_tokens,
                self.engine.device,
                sequence_length=recipe.model.sequence_length,
                multiple=self.engine.groups.tp_size * self.engine.groups.cp_size * recipe.model.kernel,
            )
            text = self.tokenizer.decode(i for i in self._answer(ids) if i < self.tokenizer.vocab_size)
            texts.append(SampleText(prompt, text))
        if self.monitor:
            self.monitor.tell(Samples(done, tuple(texts)))

    @property
    def _chat(self) -> bool:
        return self.engine.recipe.run.stage == "chat"

    def _prompt_ids(self, prompt: str) -> list[int]:
        if self._chat:
            return render_for_completion(self.tokenizer, [{"role": "user", "content": prompt}])
        return [self.tokenizer.bos_id, *self.tokenizer.encode(prompt)]

    def _answer(self, ids: Sequence[int]) -> Iterator[int]:
        end = self.tokenizer.specials.get(ASSISTANT_END) if self._chat else None
        return takewhile(lambda i: i != end, ids)


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
