"""How a rank starts: its device, its threads, and its place in the run's process group."""

from __future__ import annotations

import datetime
import os

import torch
import torch.distributed as dist

from megatron_iberis.errors import InputError
from megatron_iberis.parallel.node import cores_of_this_node, ranks_on_this_node
from megatron_iberis.parallel.third_party import set_default_timeout, set_environment


def training_device() -> torch.device:
    """This rank's GPU, by LOCAL_RANK, or the CPU where there is none."""
    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return torch.device("cpu")


def start_process_group(timeout_minutes: float) -> torch.device:
    """Joins the run's process group (environment as a launcher sets it; alone without one); returns the device.

    Raises InputError when the port at which the ranks meet is in use.
    """
    device = training_device()
    timeout = _prepare(device, timeout_minutes)
    if device.type == "cpu" and "OMP_NUM_THREADS" not in os.environ:
        # Two ranks with a thread for every core each are slower than one rank alone.
        torch.set_num_threads(max(1, cores_of_this_node() // ranks_on_this_node()))
    if "RANK" not in os.environ:
        _join_alone(device, timeout)
    elif not dist.is_initialized():
        try:
            dist.init_process_group(_backend(device), timeout=timeout)
        except dist.DistNetworkError as error:
            if "EADDRINUSE" not in str(error):
                raise
            raise InputError(
                f"port {os.environ['MASTER_PORT']} of this machine, where the ranks are to meet, is in use: give "
                "another (deepspeed --master_port N FILE, torchrun --master_port N FILE), or start with bash FILE."
            ) from None
    return device


def _prepare(device: torch.device, timeout_minutes: float) -> datetime.timedelta:
    timeout = datetime.timedelta(minutes=timeout_minutes)
    set_environment(device.type)
    set_default_timeout(timeout)  # DeepSpeed makes groups, too
    if device.type == "cuda":
        torch.cuda.set_device(device)
    return timeout


def _join_alone(device: torch.device, timeout: datetime.timedelta) -> None:
    if not dist.is_initialized():
        dist.init_process_group(_backend(device), timeout=timeout, store=dist.HashStore(), rank=0, world_size=1)


def _backend(device: torch.device) -> str:
    return "nccl" if device.type == "cuda" else "gloo"
