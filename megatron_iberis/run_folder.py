"""What lies where in a run's folder."""

from __future__ import annotations

from pathlib import Path

RECIPE = "recipe.toml"
"""The recipe as resolved: of a run in its folder, and in each of its checkpoints."""
TOKENIZER = "tokenizer"
"""A copy of the tokenizer's folder, in both as well."""

REPORT, REPORT_FACTS = "report.md", "report.json"
"""What `iberis report` writes into a folder: the report, and what `iberis convert to-hf` wants to know of it."""


class RunFolder:
    """The paths in the folder of a run, whether it is there yet or not."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    @property
    def recipe(self) -> Path:
        return self.path / RECIPE

    @property
    def tokenizer(self) -> Path:
        return self.path / TOKENIZER

    @property
    def checkpoints(self) -> Path:
        """checkpoint/files.py tells what is in there."""
        return self.path / "checkpoints"

    @property
    def log(self) -> Path:
        """One JSON object a line for each thing that happened (monitor/log.py)."""
        return self.path / "log.jsonl"

    @property
    def references(self) -> Path:
        """Log-probabilities of answers under the weights that the run began with (training/references.py)."""
        return self.path / "references"

    @property
    def rollouts(self) -> Path:
        """The answers that a model was trained on, a file a batch of them (rollouts/answers.py)."""
        return self.path / "rollouts"

    @property
    def difficulty(self) -> Path:
        """How often each prompt was answered rightly before the first step (rollouts/difficulty.py)."""
        return self.path / "difficulty.jsonl"

    @property
    def overlap(self) -> Path:
        """Evaluation items in what was trained on, where `iberis data overlap --output` was told this name."""
        return self.path / "overlap.json"

    @property
    def tensorboard(self) -> Path:
        return self.path / "tensorboard"

    @property
    def rank_logs(self) -> Path:
        """What each rank is doing, and its stacks when the run was ended (resilience/watchdog.py)."""
        return self.path / "log"

    @property
    def skipped_steps(self) -> Path:
        """Where the text of each skipped step lies (training/skipped_steps.py)."""
        return self.path / "skipped_steps.jsonl"
