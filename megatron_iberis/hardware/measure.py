"""What this machine can do at most, and how much memory this process has taken: the denominators of a report."""

from __future__ import annotations

import os
import sys
import time

import torch

from megatron_iberis.hardware.peaks import Peak, known_gpu_flops
from megatron_iberis.kernels.huge_pages import on_huge_pages
from megatron_iberis.parallel.node import cores_of_this_node, ranks_on_this_node

MEASURING_SECONDS = 0.2
TRIES = 100


def peak_flops(device: torch.device, dtype: str) -> Peak:
    """The dense peak of one rank's device for matrix products in "bf16" or "fp32" (plain, TF32 off).

    A known GPU: its data sheet. An unknown one: measured with matrix products, in a quarter of a second. A CPU:
    measured too, with this process's own threads; where the ranks of a node together have more threads than there
    are cores, a rank's peak is its share, so that peak x ranks is what the machines can do.
    """
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        known = known_gpu_flops(name, dtype)
        if known:
            return Peak(known, name)
        return Peak(_measured_flops(device, dtype), f"measured: {name}, {dtype} matmul")
    threads, ranks = torch.get_num_threads(), ranks_on_this_node()
    share = core_share(threads, ranks, cores_of_this_node())
    shared = f", cores shared by {ranks} ranks" if share < 1 else ""
    threads_in_words = "1 CPU thread" if threads == 1 else f"{threads} CPU threads"
    return Peak(share * _measured_flops(device, dtype), f"measured: {threads_in_words}, {dtype} matmul{shared}")


def faster_dtype(device: torch.device) -> str:
    """ "bf16" or "fp32", whichever this device multiplies matrices in more quickly; a GPU: bf16.

    CPUs without instructions for bf16 are slower in it by a factor of ten and more.
    """
    if device.type == "cuda":
        return "bf16"
    return max(("bf16", "fp32"), key=lambda dtype: _measured_flops(device, dtype))


def read_bandwidth(device: torch.device) -> float:
    """Bytes a second that this process reads of this device's memory: the best of some sums."""
    data = torch.ones(2**28 if device.type == "cuda" else 2**27, device=device)  # no cache holds so much
    if device.type == "cpu":
        data = on_huge_pages(data)
    best = float("inf")
    for _ in range(8):
        _wait(device)
        started = time.perf_counter()
        data.sum()
        _wait(device)
        best = min(best, time.perf_counter() - started)
    return data.nbytes / best


def core_share(threads: int, ranks: int, cores: int) -> float:
    """The share of its threads' speed that a rank can have when `ranks` of them run on `cores` cores at once."""
    return min(1.0, cores / max(1, threads * ranks))


def memory_bytes(device: torch.device) -> int:
    """Peak memory since the start: allocated on the GPU, or resident in RAM for a process without one."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:  # Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def resident_bytes(device: torch.device) -> int:
    """Memory in use now: as `memory_bytes`, but no peak. 0 where it can't be told."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    try:
        with open("/proc/self/statm") as pages:
            return int(pages.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, AttributeError):  # not on Linux
        return 0


def _measured_flops(device: torch.device, dtype: str) -> float:
    """The best rate of square matrix products, as large as can be tried often: other work may be in their way."""
    best, size = 0.0, 512
    _product_seconds(64, device, dtype)  # libraries load, threads start
    end = time.perf_counter() + MEASURING_SECONDS
    while time.perf_counter() < end:
        seconds = _product_seconds(size, device, dtype)
        best = max(best, 2 * size**3 / seconds)
        if (
            size < 8192 and TRIES * 8 * seconds < MEASURING_SECONDS
        ):  # a product of twice the size takes 8 times as long
            size *= 2
    return best


def _product_seconds(size: int, device: torch.device, dtype: str) -> float:
    """Wall clock of one warm product; constant matrices, so that no random number is used up."""
    a = torch.full((size, size), 0.5, device=device, dtype=torch.bfloat16 if dtype == "bf16" else torch.float32)
    out = torch.empty_like(a)
    best = float("inf")
    for _ in range(3):
        _wait(device)
        started = time.perf_counter()
        torch.mm(a, a, out=out)
        _wait(device)
        best = min(best, time.perf_counter() - started)
    return best


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
