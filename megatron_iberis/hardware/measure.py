"""What the hardware can do at most, and how much memory this process has taken: the denominators of a report."""

from __future__ import annotations

import re
import sys
import time
from dataclasses import dataclass

import torch

from megatron_iberis.parallel.node import cores_of_this_node, ranks_on_this_node

# Dense peaks in TFLOP/s by a pattern in the device's name, first match counts: (bf16 with fp32 sums, plain fp32).
# NVIDIA's own data sheets, where "with sparsity" halved: H100, H200, GH200, B200/GB200/B300 (HGX and NVL72 tables
# over the number of GPUs), A100, A800/H800 as their parents, H20, L40S, L40, L4, A40, A10, RTX 6000 Ada, RTX A6000;
# GeForce: the Ampere GA102, Ada and Blackwell architecture white papers, rows "Peak BF16 with FP32 accumulate".
GPU_PEAKS: tuple[tuple[str, float, float], ...] = (
    (r"\bH100 NVL\b", 835.5, 60.0),
    (r"\bH[18]00 PCIE\b", 756.5, 51.2),
    (r"\bH200 NVL\b", 835.5, 60.0),
    (r"\b(H100|H200|GH200|H800)\b", 989.4, 66.9),
    (r"\bH20\b", 148.0, 44.0),
    (r"\bGB[23]00\b", 2500.0, 80.0),
    (r"\bB[23]00\b", 2250.0, 75.0),
    (r"\bA[18]00\b", 312.0, 19.5),
    (r"\bL40S\b", 362.1, 91.6),
    (r"\bL40\b", 181.1, 90.5),
    (r"\bL4\b", 121.0, 30.3),
    (r"\bA40\b", 149.7, 37.4),
    (r"\bA30\b", 165.0, 10.3),
    (r"\bA10\b", 125.0, 31.2),
    (r"\bRTX 6000 ADA\b", 364.2, 91.1),
    (r"\bRTX A6000\b", 154.8, 38.7),
    (r"\bRTX 5090\b(?! D| LAPTOP)", 209.5, 104.8),
    (r"\bRTX 4090\b(?! D| LAPTOP)", 165.2, 82.6),
    (r"\bRTX 3090 TI\b", 80.0, 40.0),
    (r"\bRTX 3090\b", 71.0, 35.6),
)
MEASURING_SECONDS = 0.2
TRIES = 100


@dataclass(frozen=True)
class Peak:
    """The most floating-point operations a second that one rank could do, and where the figure comes from."""

    flops: float
    name: str


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


def known_gpu_flops(name: str, dtype: str) -> float | None:
    """The dense peak in FLOP/s of the GPU that the driver calls `name`; None when it is not in the table.

    A slice of a GPU (MIG) is not in the table.
    """
    if " MIG " in name:
        return None
    for pattern, bf16, fp32 in GPU_PEAKS:
        if re.search(pattern, name.upper().replace("-", " ")):
            return 1e12 * (bf16 if dtype == "bf16" else fp32)
    return None


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
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        started = time.perf_counter()
        torch.mm(a, a, out=out)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - started)
    return best
