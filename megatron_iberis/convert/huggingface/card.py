"""The model card of an export, README.md: what the model is, how it is used, and how exact the export is."""

from __future__ import annotations

from pathlib import Path

import torch

from megatron_iberis.config import Recipe, recipe_text
from megatron_iberis.convert.huggingface.comparison import Difference
from megatron_iberis.tokenizer import Tokenizer

TEXT = Path(__file__).with_name("card.md")
_STAGES = {
    "base": "a base model: it continues text, and has not learned conversations",
    "chat": "a chat model: it has learned conversations",
}


def card(
    recipe: Recipe, step: int, parameters: int, dtype: torch.dtype, difference: Difference, tokenizer: Tokenizer
) -> str:
    """The text of the model card."""
    model = recipe.model
    attention = len(model.attention_layers)
    stage = recipe.run.stage
    name = str(dtype).removeprefix("torch.")
    values = {
        "stage": _STAGES[stage],
        "example": _CHAT if stage == "chat" else _CONTINUATION,
        "parameters": f"{parameters:,}",
        "layers": f"{model.depth} ({model.depth - attention} SLC2, {attention} attention)",
        "width": f"{model.width:,}",
        "heads": f"{model.heads} of {model.head_size}, {model.kv_heads} for keys and values",
        "context": f"{model.sequence_length:,}",
        "vocabulary": f"{tokenizer.vocab_size:,} ({tokenizer.manifest['kind']})",
        "steps": f"{step:,} steps of {recipe.train.batch_tokens:,} tokens",
        "dtype": name,
        "fp32": f"{difference.fp32:.1e}",
        "stored": f"{difference.stored:.1e}",
        "softcap": f"{model.softcap:g}",
        "recipe": recipe_text(recipe).strip(),
    }
    return TEXT.read_text(encoding="utf-8").format_map(values)


_CONTINUATION = """\
inputs = tokenizer("The moon", return_tensors="pt")
print(tokenizer.decode(model.generate(**inputs, max_new_tokens=64)[0]))"""

_CHAT = """\
messages = [{"role": "user", "content": "Why is the sky blue?"}]
inputs = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
answer = model.generate(**inputs, max_new_tokens=256)[0, inputs["input_ids"].shape[1] :]
print(tokenizer.decode(answer, skip_special_tokens=True))"""
