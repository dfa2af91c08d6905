"""What GPUs can do at most, by the names that their drivers give: a table, which needs no torch."""

from __future__ import annotations

import re
from dataclasses import dataclass

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


@dataclass(frozen=True)
class Peak:
    """The most floating-point operations a second that one rank could do, and where the figure comes from."""

    flops: float
    name: str


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
