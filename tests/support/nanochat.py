"""Folders as nanochat and Saint Iberis' own repositories write them, from any weights."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import torch

from megatron_iberis.config import ModelConfig
from megatron_iberis.model.reference import ReferenceIberis
from megatron_iberis.tokenizer import SPECIALS
from tests.support.comparison import randomise

PATTERN = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,2}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s+"
VOCABULARY = 256 + len(SPECIALS)
"""Of the tokenizer that is written: single bytes and the specials."""


def write_tokenizer(folder: Path, merges: int = 0) -> Path:
    """tokenizer.pkl, as tiktoken's own class pickles itself."""
    import tiktoken

    ranks = {bytes([byte]): byte for byte in range(256)}
    ranks.update({bytes([97 + i // 26, 97 + i % 26]): 256 + i for i in range(merges)})
    specials = {name: len(ranks) + i for i, name in enumerate(SPECIALS)}
    encoding = tiktoken.Encoding("rustbpe", pat_str=PATTERN, mergeable_ranks=ranks, special_tokens=specials)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "tokenizer.pkl"
    path.write_bytes(pickle.dumps(encoding))
    return path


def metadata(config: ModelConfig, **more: object) -> dict[str, Any]:
    """The sizes that base and mid training write; `more` is what a later stage adds, None takes one away."""
    sizes: dict[str, Any] = {
        "sequence_len": config.sequence_length,
        "vocab_size": config.vocab_size,
        "n_layer": config.depth,
        "n_head": config.heads,
        "n_kv_head": config.kv_heads,
        "n_embd": config.width,
        **more,
    }
    return {name: value for name, value in sizes.items() if value is not None}


def write_checkpoint(
    base: Path,
    weights: dict[str, torch.Tensor],
    sizes: dict[str, Any],
    step: int = 20,
    name: str = "d5",
    given: dict[str, Any] | None = {"depth": 5},  # noqa: B006 (it is only read)
) -> Path:
    """Model and metadata below `base`, and a tokenizer where upstream has it; returns the checkpoint's folder.

    given: the settings that base and mid training write down as well, base training its depth among them.
    """
    folder = base / "base_checkpoints" / name
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(weights, folder / f"model_{step:06d}.pt")
    meta = {"step": step, "val_bpb": 1.5, "model_config": sizes}
    meta |= {"user_config": given} if given is not None else {}
    (folder / f"meta_{step:06d}.json").write_text(json.dumps(meta, indent=2))
    if not (base / "tokenizer").exists():
        write_tokenizer(base / "tokenizer")
    return folder


def random_weights(config: ModelConfig, seed: int = 0) -> dict[str, torch.Tensor]:
    """Weights under which every part of the model matters."""
    model = ReferenceIberis(config)
    randomise(model, seed)
    return {name: parameter.detach() for name, parameter in model.named_parameters()}
