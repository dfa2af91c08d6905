"""What megatron-core asks of torch.cuda, answered for a CPU.

Everything that is changed outside our own package is changed here, once, by `prepare_megatron`:

* megatron-core's collectives allocate with `device=torch.cuda.current_device()`; without a GPU that call
  gets the CPU as its answer.
* Its block forks a CUDA random state under sequence parallelism. There is no dropout in this model, so the
  tracker is the one that megatron-core uses for inference, whose forks do nothing.
* Its column-parallel layers gather into a buffer that comes with its global groups, which are not used here.
"""

from __future__ import annotations

import torch
from megatron.core import parallel_state
from megatron.core.tensor_parallel.random import initialize_rng_tracker


def _cpu() -> torch.device:
    return torch.device("cpu")


def prepare_megatron() -> None:
    """Makes megatron-core usable on this machine. Call before building a model; more than once does no harm."""
    initialize_rng_tracker(inference_rng_tracker=True)
    if parallel_state._GLOBAL_MEMORY_BUFFER is None:  # otherwise made by initialize_model_parallel only
        parallel_state._set_global_memory_buffer()
    if not torch.cuda.is_available():
        torch.cuda.current_device = _cpu
