"""How much the sections do: the whole on a GPU; on a CPU as little as shows that they work."""

from __future__ import annotations

from dataclasses import dataclass

Trajectory = tuple[str, str, str, int]
"""Folder in tests/golden, variant, name, and how many of its steps."""


@dataclass(frozen=True)
class Scale:
    """Sizes of one check."""

    device: str
    cases: tuple[str, ...]
    """Golden cases."""
    trajectories: tuple[Trajectory, ...]
    stages: tuple[int, ...]
    """ZeRO stages."""
    steps: int
    """Steps of each run that is started by the launcher; even."""
    model: tuple[str, ...]
    """Overrides of the recipes that are trained."""
    rows: int
    """Rows of a measured step, and the largest micro-batch that is tried: a power of two."""
    seconds: float
    """How long each speed is measured."""
    compiler: str
    """torch.compile's backend."""


CPU = Scale(
    device="cpu",
    cases=("jp_gqa",),
    trajectories=(("traj", "en", "C_f32tab_f32ns_zeroinit", 3),),
    stages=(0, 3),
    steps=4,
    model=(
        "--model.depth=3",
        "--model.width=64",
        "--model.heads=2",
        "--model.mlp_hidden=96",
        "--model.vocab_size=600",
        "--model.sequence_length=32",
        "--train.compile=false",
    ),
    rows=2,
    seconds=0.05,
    compiler="aot_eager",  # compiles nothing, which takes a second
)
CUDA = Scale(
    device="cuda",
    cases=("en_base", "jp_base", "en_gqa", "jp_gqa"),
    trajectories=(
        ("traj", "en", "C_f32tab_f32ns_zeroinit", 20),
        ("traj", "jp", "C_f32tab_f32ns_zeroinit", 20),
        ("traj_base", "en", "C_f32tab_f32ns_zeroinit", 20),
        ("traj_base", "jp", "C_f32tab_f32ns_zeroinit", 20),
        ("traj", "en", "C_f32tab_f32ns", 20),
        ("traj", "jp", "C_f32tab_f32ns", 5),
    ),
    stages=(0, 1, 2, 3),
    steps=6,
    model=(),
    rows=32,  # one of eight GPUs' share of the recipes' 524,288 tokens
    seconds=5.0,
    compiler="inductor",
)
SCALES = {scale.device: scale for scale in (CPU, CUDA)}
