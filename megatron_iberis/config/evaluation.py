"""Section [evaluation]: looks at the model along the way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from megatron_iberis.config.checks import AtLeast


@dataclass(frozen=True)
class EvaluationConfig:
    """Looks at the model along the way: bits per byte on held-out text, and sample texts."""

    every: Annotated[int, AtLeast(0)] = 250
    """Steps between validations (also at the start and the end); 0: only at the end."""
    tokens: Annotated[int, AtLeast(0)] = 10485760
    """Tokens of a validation, as many as there are at most."""
    sample_every: Annotated[int, AtLeast(0)] = 2000
    """Steps between sample texts (also at the end); 0: none."""
    sample_tokens: Annotated[int, AtLeast(1)] = 16
    """Tokens of a sample text."""
    sample_prompts: tuple[str, ...] = (
        "The capital of France is",
        "If yesterday was Friday, then tomorrow will be",
    )
    """What the sample texts continue."""
    tasks: tuple[str, ...] = ()
    """Tasks to be measured along the way, named as for `iberis eval base` or, of a chat model, `iberis eval chat`."""
    tasks_every: Annotated[int, AtLeast(0)] = 2000
    """Steps between two such measurements (also at the end); 0: only at the end."""
    tasks_items: Annotated[int, AtLeast(0)] = 500
    """Items of each task at most; 0: all."""
    tasks_root: str = ""
    """The folder of the tasks' files and of the CORE bundle."""
