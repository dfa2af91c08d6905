"""Section [data]: token files and tokenizer."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from typing import Literal

_PATH_OF_MIXTURE = re.compile(r"((?:^|\|)\s*(?:[0-9.eE+-]+\s+)?)(~[^/|\s]*)")
"""Where a path that begins with ~ may stand: at the start or after |, with or without a weight before it."""


@dataclass(frozen=True)
class DataConfig:
    """Token files, made by data_tools/preprocess.py, and the tokenizer that made them."""

    train: str = ""
    """Token files to train on, without .bin: "a", "a | b" (each once an epoch) or "0.7 a | 0.3 b" (by weight)."""
    packing: Literal["concat", "best_fit", "megatron"] = "concat"
    """How rows are cut from the training text: where they fall (concat), of whole documents (best_fit), or as
    megatron-core's GPTDataset does (megatron)."""
    document_mask: bool = False
    """Documents in a row do not see each other: neither attention nor SLC2's convolution looks across a border."""
    val: str = ""
    """Held-out token file for bits per byte; empty: no validation."""
    tokenizer: str = ""
    """Folder of the tokenizer."""

    def resolved(self) -> DataConfig:
        """The same with the home folder in the place of each ~ that a path begins with."""
        return replace(
            self,
            train=_PATH_OF_MIXTURE.sub(lambda found: found[1] + os.path.expanduser(found[2]), self.train),
            val=os.path.expanduser(self.val),
            tokenizer=os.path.expanduser(self.tokenizer),
        )
