"""Measuring in fresh processes, which share nothing but the imports that came before."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import TypeVar

import torch

from benchmarks.cpu import contenders
from benchmarks.cpu.shapes import Dtype, Shape
from megatron_iberis.hardware.measure import memory_bytes
from megatron_iberis.parallel.third_party import set_environment

T = TypeVar("T")
CPU = torch.device("cpu")
IMPORTS = ["benchmarks.cpu.contenders", "deepspeed"]
"""What the process that children are forked from has imported: both sides' modules, and nothing of the caller's."""


def in_child(function: Callable[..., T], *arguments: object) -> T:
    """function(*arguments) in a process of its own; both at module level."""
    set_environment("cpu")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(IMPORTS)
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(function, *arguments).result()


def peak_of_steps(side: str, shape: Shape, dtype: Dtype, threads: int, steps: int) -> float:
    """Runs in a child: bytes that its peak resident memory grows by while it makes so many whole steps.

    That is above what it has after the imports, which are a few hundred MB, are the same for both sides and would
    hide what a small model needs. Model, gradients, optimizer and whatever else the steps take are in it.
    """
    before = memory_bytes(CPU)
    groups = contenders.start(threads)
    if side == "ours":
        step = contenders.engine_step(contenders.engine_of(shape, dtype, groups), shape)
    else:
        step = contenders.upstream_step(shape, dtype)
    for _ in range(steps):
        step()
    return float(memory_bytes(CPU) - before)
