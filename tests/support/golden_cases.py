"""Reads tests/golden; see the README there."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import load_file

from megatron_iberis.config import ModelConfig

GOLDEN = Path(__file__).parents[1] / "golden"
CASES = ("en_base", "jp_base", "en_gqa", "jp_gqa")


def model_config(case: str) -> ModelConfig:
    golden = json.loads((GOLDEN / case / "config.json").read_text())
    sizes = golden["config"]
    return ModelConfig(
        depth=sizes["n_layer"],
        width=sizes["n_embd"],
        heads=sizes["n_head"],
        kv_heads=sizes["n_kv_head"],
        mlp_hidden=golden["mlp_hidden"],
        inner_norm=golden["variant"] == "jp",
        slc_rate=sizes["slc_rate"],
        kernel=sizes["n_kernel"],
        vocab_size=sizes["vocab_size"],
        sequence_length=sizes["sequence_len"],
    ).resolved()


def tensors(case: str, name: str) -> dict[str, torch.Tensor]:
    return load_file(GOLDEN / case / f"{name}.safetensors")
