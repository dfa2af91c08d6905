"""Everything that is changed outside our own package: each patch a function, with its reason.

tests/parallel/test_third_party.py looks whether what each of them changes is still there, so that an upgrade of
torch, megatron-core or DeepSpeed fails there, by name, and nowhere else. Nothing heavy is imported before its time.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import warnings
from collections.abc import Iterator
from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def ignore_warnings() -> None:
    """Of what other packages warn of, leaves out what was decided on purpose or is not ours to change."""
    warnings.filterwarnings("ignore", message="Transformer Engine and Apex are not installed")
    warnings.filterwarnings("ignore", message=r"`torch\.distributed\.\w+` is deprecated")


def set_environment(device_type: str) -> None:
    """Environment variables that other packages read, unless the user has set them."""
    # megatron-core wants one queue, so that a gradient's all-reduce starts before the next matrix product.
    os.environ.setdefault("CUDA_DEVICE_MAX_CONNECTIONS", "1")
    os.environ.setdefault("DS_ACCELERATOR", device_type)  # else DeepSpeed warns that it found no GPU
    if "RANK" not in os.environ:
        os.environ.setdefault("LOCAL_RANK", "0")  # DeepSpeed asks for it, launched or not


def set_default_timeout(timeout: timedelta) -> None:
    """The longest wait in collectives of every group: `new_group()` knows only torch's own (NCCL's: 10 minutes)."""
    from torch.distributed import distributed_c10d

    distributed_c10d.default_pg_timeout = distributed_c10d.default_pg_nccl_timeout = timeout


def prepare_megatron() -> None:
    """Makes megatron-core usable on this machine. Call before building a model; more than once does no harm.

    * Its collectives allocate with `device=torch.cuda.current_device()`; without a GPU that call gets the CPU as its
      answer.
    * Its block forks a CUDA random state under sequence parallelism. There is no dropout in this model, so the
      tracker is the one that megatron-core uses for inference, whose forks do nothing.
    * Its column-parallel layers gather into a buffer that comes with its global groups, which are not used here.
    """
    import torch
    from megatron.core import parallel_state
    from megatron.core.tensor_parallel.random import initialize_rng_tracker

    initialize_rng_tracker(inference_rng_tracker=True)
    if parallel_state._GLOBAL_MEMORY_BUFFER is None:  # otherwise made by initialize_model_parallel only
        parallel_state._set_global_memory_buffer()
    if not torch.cuda.is_available():
        torch.cuda.current_device = _cpu


def _cpu() -> torch.device:
    import torch

    return torch.device("cpu")


@contextlib.contextmanager
def deepspeed_starting() -> Iterator[None]:
    """Around `deepspeed.initialize`: nothing is compiled, and it says nothing.

    Its shared-memory collectives for CPUs are compiled at the first start, where a kill leaves a lock file that all
    later starts wait for, and leave 66 MB a rank in /dev/shm. gloo does the same work. What it warns of at its start
    was chosen on purpose, and its bf16 optimizer prints memory figures.
    """
    import deepspeed
    from deepspeed.utils import logger

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    logger.setLevel(logging.ERROR)
    with contextlib.redirect_stdout(io.StringIO()):
        yield
    logger.setLevel(logging.WARNING)
