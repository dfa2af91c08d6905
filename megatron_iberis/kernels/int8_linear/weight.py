"""A weight matrix in int8, in the order in which the kernel reads it.

* Symmetric, in groups of 32 or 64 along the inputs. A scale is the group's largest number over 127, rounded up to
  bf16 before the weights are divided by it: its rounding costs at most 1/128 of the range and no exactness.
* The outputs are interleaved by 16, in pairs of inputs: the vector instructions multiply pairs and add them up.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F

from megatron_iberis import _C
from megatron_iberis.kernels.huge_pages import on_huge_pages

BLOCK = 16
GROUPS = (32, 64)


@dataclass(frozen=True, eq=False)
class Int8Weight:
    """W [O, I], filled up with zeros to whole blocks of outputs and whole groups of inputs.

    values: int8 [O'/16, I'/group, group/2, 16, 2]; scales: bf16 [O'/16, I'/group, 16]; shape: (O, I).
    """

    values: torch.Tensor
    scales: torch.Tensor
    shape: tuple[int, int]

    @property
    def group(self) -> int:
        """Inputs that share a scale."""
        return 2 * self.values.shape[2]

    @property
    def nbytes(self) -> int:
        """What is read for a product."""
        return self.values.nbytes + self.scales.nbytes

    def dequantized(self) -> torch.Tensor:
        """The matrix that this stands for, fp32 [O, I]."""
        blocks, groups = self.scales.shape[:2]
        numbers = self.values.float() * self.scales.float()[:, :, None, :, None]
        outputs, inputs = self.shape
        whole = numbers.permute(0, 3, 1, 2, 4).reshape(blocks * BLOCK, groups * self.group)
        return whole[:outputs, :inputs].contiguous()

    @cached_property
    def matrix(self) -> _C.Int8Matrix:
        """The same memory for the kernel in C++."""
        scales = self.scales.view(torch.uint16).numpy()
        return _C.Int8Matrix(self.values.numpy(), scales, *self.shape, self.group)


def quantize(weight: torch.Tensor, group: int = 32) -> Int8Weight:
    """weight: [O, I], of any floating type. A group with an infinity or a NaN in it becomes NaN.

    ValueError unless the groups are of 32 or 64 and the weight is a matrix.
    """
    if group not in GROUPS or weight.dim() != 2:
        raise ValueError(f"quantize takes a matrix in groups of 32 or 64, not {tuple(weight.shape)} in {group}.")
    outputs, inputs = weight.shape
    blocks, groups = -(-outputs // BLOCK), -(-inputs // group)
    padded = F.pad(weight.detach().float(), (0, groups * group - inputs, 0, blocks * BLOCK - outputs))
    numbers = padded.view(blocks, BLOCK, groups, group // 2, 2)
    scales = _rounded_up_to_bf16(numbers.abs().amax((3, 4)) / 127)  # [blocks, 16, groups]
    steps = numbers / scales.float()[:, :, :, None, None]
    values = steps.nan_to_num(0.0).round_().to(torch.int8)
    packed = (on_huge_pages(values.permute(0, 2, 3, 1, 4)), on_huge_pages(scales.transpose(1, 2)))
    return Int8Weight(*packed, (outputs, inputs))


def _rounded_up_to_bf16(numbers: torch.Tensor) -> torch.Tensor:
    """Non-negative fp32 -> bf16, so that none becomes smaller."""
    bits = numbers.view(torch.int32)
    up = torch.where(numbers.isfinite(), bits + 0xFFFF, bits)
    return (up & ~0xFFFF).view(torch.float32).to(torch.bfloat16)
