"""A trained model from a checkpoint folder, whole, in this process."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from megatron_iberis.checkpoint.weights import CheckpointWeights, whole_checkpoint
from megatron_iberis.config import Recipe
from megatron_iberis.inference.exact import continue_prompt
from megatron_iberis.model.iberis import Iberis
from megatron_iberis.model.initialization import build_model, fill_parameters
from megatron_iberis.model.parameters import shards
from megatron_iberis.parallel.groups import ParallelGroups
from megatron_iberis.parallel.start import start_alone
from megatron_iberis.tokenizer import Tokenizer


@dataclass(frozen=True)
class LoadedModel:
    """A model ready to be asked, with its tokenizer and the recipe that it was trained by."""

    model: Iberis
    tokenizer: Tokenizer
    recipe: Recipe
    step: int
    device: torch.device

    def complete(self, prompt: str, new_tokens: int, temperature: float = 0.0, seed: int = 0) -> str:
        """The text that follows the prompt, to the end of the document at most.

        temperature 0 takes the likeliest token each time.
        """
        ids = continue_prompt(
            self.model,
            [self.tokenizer.bos_id, *self.tokenizer.encode(prompt)],
            new_tokens,
            self.device,
            temperature=temperature,
            seed=seed,
            sequence_length=self.recipe.model.sequence_length,
            end=self.tokenizer.bos_id,  # with which the next document begins
        )
        return self.tokenizer.decode(i for i in ids if i < self.tokenizer.vocab_size)


def load_model(folder: str | Path) -> LoadedModel:
    """Loads a checkpoint folder, or the latest checkpoint of a run folder, on the GPU where there is one.

    bf16 on a GPU, fp32 on a CPU. A damaged newest checkpoint is named on standard error, and the one before it is
    taken. Raises InputError when the folder holds no whole checkpoint.
    """
    path = whole_checkpoint(Path(folder))
    checkpoint = CheckpointWeights(path)
    recipe = checkpoint.recipe
    tokenizer = Tokenizer.load(checkpoint.tokenizer)
    device = start_alone()
    model = build_model(recipe.model, ParallelGroups.create())
    fill_parameters(shards(model), checkpoint.weights)
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    return LoadedModel(model.to(device=device, dtype=dtype).eval(), tokenizer, recipe, checkpoint.step, device)
