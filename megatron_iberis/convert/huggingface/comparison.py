"""How far an exported folder is from the checkpoint, found out by loading it with transformers in a fresh process.

* Logits: a batch of random ids, one row of it padded, in one pass and in two passes on a cache, beside
  `ReferenceIberis`.
* Ids: texts that are hard for tokenizers, beside our tokenizer's ids.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from megatron_iberis.config import ModelConfig
from megatron_iberis.convert.huggingface.tokenizer import same_ids
from megatron_iberis.model.reference import ReferenceIberis
from megatron_iberis.tokenizer import Tokenizer

LONGEST = 64
PADDED = 5
MOST = 1e-3
"""Above that, in fp32 and with the very same weights, something else is computed: rounding gives 1e-4 at the most."""
PROGRAM = Path(__file__).with_name("run_exported.py")
TEXTS = (
    "The moon rose late.  Don't wait:\n\n\tprint(f'{x[0]:>3}')  # 12,345.678\r\n",
    "月は東の山から昇り、海を照らした。「おはよう！」と彼は言った。 １２３ ㍿ ﾃｽﾄ ーーー",
    "e\u0301 が か\u3099 👩‍👩‍👧 🇯🇵 \u2581 \u3000\u00a0\u200b\ufeff\x00\x1f<0x0A> <unk> a\u2581b   ",
    "aaaaaaaaaaaaaaaaaaaaaaa        ========----- んんんんんん\n\n\n\n\n",
)


@dataclass(frozen=True)
class Difference:
    """The largest differences of logits, which lie between plus and minus the soft cap."""

    fp32: float
    """With the exported weights, both computed in fp32."""
    stored: float
    """With the exported weights in their dtype, computed in it, beside the checkpoint's in fp32."""


def compare(
    folder: Path, config: ModelConfig, weights: Mapping[str, torch.Tensor], dtype: torch.dtype, tokenizer: Tokenizer
) -> Difference:
    """Loads `folder` with transformers and compares it. weights: the checkpoint's, fp32. dtype: what was exported.

    RuntimeError when the logits are not those of the same model, or the ids not our tokenizer's.
    """
    length = min(LONGEST, config.sequence_length)
    padded = min(PADDED, length - 1)
    ids = torch.randint(config.vocab_size, (2, length), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[1, :padded] = 0
    dtypes = ["float32"] if dtype == torch.float32 else ["float32", str(dtype).removeprefix("torch.")]
    with tempfile.TemporaryDirectory() as scratch:
        request, answer = Path(scratch, "request.safetensors"), Path(scratch, "answer.safetensors")
        asked = {"texts": json.dumps(TEXTS), "dtypes": json.dumps(dtypes)}
        save_file({"ids": ids, "mask": mask}, request, metadata=asked)
        _run(folder, request, answer)
        logits = load_file(answer)
        with safe_open(answer, framework="pt") as file:
            theirs = json.loads(file.metadata()["ids"])
    for text, found in zip(TEXTS, theirs, strict=True):
        if not same_ids(tokenizer, text, found):
            raise RuntimeError(f"the exported tokenizer gives other ids for {text!r}: {found}")
    rounded = _reference(config, {name: weights[name].to(dtype).float() for name in weights}, ids, padded)
    fp32 = _largest(logits, dtypes[0], rounded, padded)
    if not fp32 <= MOST:
        raise RuntimeError(f"the exported model gives other logits than the checkpoint, by up to {fp32:.3g}")
    if dtype == torch.float32:
        return Difference(fp32, fp32)
    return Difference(fp32, _largest(logits, dtypes[1], _reference(config, dict(weights), ids, padded), padded))


def _run(folder: Path, request: Path, answer: Path) -> None:
    """run_exported.py, with a cache of modules of its own, in a folder without any other file."""
    environment = os.environ | {
        "HF_MODULES_CACHE": str(answer.parent / "modules"),
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }
    command = [sys.executable, "-c", PROGRAM.read_text(encoding="utf-8"), str(folder.absolute())]
    done = subprocess.run(
        [*command, str(request), str(answer)],
        cwd=answer.parent,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(f"transformers cannot load what was exported:\n{done.stderr}")


@torch.no_grad()
def _reference(
    config: ModelConfig, weights: Mapping[str, torch.Tensor], ids: torch.Tensor, padded: int
) -> list[torch.Tensor]:
    """Logits of each row, the second without its padding: [T, V] and [T - padded, V]."""
    with torch.device("meta"):
        model = ReferenceIberis(config)
    model.load_state_dict(dict(weights), assign=True)
    return [model(ids[:1])[0], model(ids[1:, padded:])[0]]


def _largest(logits: Mapping[str, torch.Tensor], kind: str, wanted: list[torch.Tensor], padded: int) -> float:
    found = []
    for passes in ("whole", "cached"):
        whole, short = logits[f"{kind}.{passes}"]
        found += [(whole - wanted[0]).abs().max(), (short[padded:] - wanted[1]).abs().max()]
    return torch.stack(found).max().item()  # NaN if there is one
