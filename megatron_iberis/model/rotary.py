"""Rotary embedding, half-split, turning by minus theta as upstream does; tables and arithmetic in fp32.

Upstream stores its tables in bf16, which shifts logits by up to 0.02; fp32 tables are kept here.
"""

from __future__ import annotations

import torch


class RotaryTable:
    """cos and sin of pos x base^(-2j / D), grown on demand and kept for one device.

    Not a module buffer: casting the model to bf16 would cast the table with it.
    """

    def __init__(self, head_size: int, base: float) -> None:
        self.head_size, self.base = head_size, base
        self._tables: tuple[torch.Tensor, torch.Tensor] | None = None

    def __call__(self, length: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        """(cos, sin), each fp32 [length, 1, 1, D/2], for the positions 0 .. length - 1."""
        tables = self._tables
        if tables is None or tables[0].shape[0] < length or tables[0].device != device:
            exponent = torch.arange(0, self.head_size, 2, dtype=torch.float32, device=device) / self.head_size
            positions = torch.arange(length, dtype=torch.float32, device=device)
            angles = torch.outer(positions, 1.0 / self.base**exponent)[:, None, None, :]
            tables = self._tables = (angles.cos(), angles.sin())
        return tables[0][:length], tables[1][:length]


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Turns each head's halves (a, b) to (a cos + b sin, b cos - a sin). x: [T, B, H, D]; returns fp32."""
    a, b = x.float().chunk(2, dim=-1)
    return torch.cat((a * cos + b * sin, b * cos - a * sin), dim=-1)
