"""What the start of a run says of it."""

from __future__ import annotations

from megatron_iberis.config import Recipe
from megatron_iberis.kernels.choice import kernels_line


def opening_lines(recipe: Recipe, data_parallel: int, device: str, data: str) -> list[str]:
    """ "name: value" lines about model, layout, kernels, batch, data and folder.

    data_parallel: ranks that see different samples; device: "cpu" or "cuda"; data: the training samples in a line.
    """
    model, parallel, train = recipe.model, recipe.parallel, recipe.train
    attention = len(model.attention_layers)
    return [
        f"model: {model.parameter_count():,} parameters, {model.depth} layers ({model.depth - attention} SLC2, "
        f"{attention} attention), width {model.width}, {model.heads} heads, vocabulary {model.vocab_size:,}",
        f"layout: tensor {parallel.tp}{' + sequence' if parallel.sequence_parallel else ''} x context "
        f"{parallel.cp} x data {data_parallel}, ZeRO {parallel.zero_stage}, {train.dtype} on {device}",
        kernels_line(device),
        f"batch: {train.batch_tokens:,} tokens = {train.device_batch} rows x {model.sequence_length} x "
        f"{data_parallel} ranks x {train.accumulation(model, data_parallel)} micro-batches",
        f"data: {data}; {train.steps:,} steps make {train.steps * train.batch_tokens:,}",
        f"folder: {recipe.run.folder}",
    ]
