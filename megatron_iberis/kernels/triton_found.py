"""Whether Triton is installed: a CUDA build of torch brings it along."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec


@cache
def has_triton() -> bool:
    """Looked up once, without importing it."""
    return find_spec("triton") is not None
