"""How a rank starts: its device, its threads, and its place in the run's process group."""

from __future__ import annotations

import datetime
import os

import torch
import torch.distributed as dist

from megatron_iberis.parallel.node import cores_of_this_node, ranks_on_this_node
from megatron_iberis.parallel.third_party import set_default_timeout, set_environment


def training_device() -> torch.device:
    """This rank's GPU, by LOCAL_RANK, or the CPU where there is none."""
    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return torch.device("cpu")


def start_process_group(timeout_minutes: float) -> torch.device:
    """Joins the run's process group (environment as a launcher sets it; alone without one); returns the device."""
    device = training_device()
    set_environment(device.type)
    timeout = datetime.timedelta(minutes=timeout_minutes)
    set_default_timeout(timeout)  # DeepSpeed makes groups, too
    if device.type == "cuda":
        torch.cuda.set_device(device)
    elif "OMP_NUM_THREADS" not in os.environ:
        # Two ranks with a thread for every core each are slower than one rank alone.
        torch.set_num_threads(max(1, cores_of_this_node() // ranks_on_this_node()))
    if not dist.is_initialized():
        backend = "nccl" if device.type == "cuda" else "gloo"
        if "RANK" in os.environ:
            dist.init_process_group(backend, timeout=timeout)
        else:
            dist.init_process_group(backend, timeout=timeout, store=dist.HashStore(), rank=0, world_size=1)
    return device
