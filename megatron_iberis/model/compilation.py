"""Layers as compiled graphs (torch.compile): fewer passes over memory between the matrix products."""

from __future__ import annotations

import os
import shutil

from megatron_iberis.errors import InputError
from megatron_iberis.model.iberis import Iberis

COMPILERS = ("g++", "clang++", "c++")


def compile_layers(model: Iberis, backend: str = "inductor") -> None:
    """Each layer is compiled when it first runs; layers of a kind share their graphs.

    To be called before DeepSpeed gets hold of the model. A tensor-parallel layer is cut into several graphs by its
    collectives, and attention inside documents, whose lengths change from row to row, runs outside of them. Shapes
    are fixed: each other shape of a micro-batch is compiled anew. backend: torch.compile's. Raises InputError where
    nothing can compile.
    """
    if not any(map(shutil.which, (os.environ.get("CXX") or "", *COMPILERS))):
        raise InputError(
            "train.compile needs a C++ compiler and there is none: install one (Debian: apt install g++), or set "
            "train.compile to false."
        )
    for layer in model.decoder.layers:
        layer.compile(dynamic=False, backend=backend)
