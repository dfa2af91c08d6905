"""Small runs that learn from their own answers, on ranks that are there already."""

from __future__ import annotations

from pathlib import Path
from random import Random

from megatron_iberis.config import load_recipe
from megatron_iberis.stages.reinforce import run
from megatron_iberis.stages.reinforce_inputs import open_prompts
from megatron_iberis.tokenizer.chat import Message
from tests.support.finetuning import said, write
from tests.support.runs import SMALL

ANSWERS = "abcdef"
_PLACES = "river sea night garden bridge cloud ferry walnut village letter island winter"
PLACES = _PLACES.split()


def questions() -> list[list[Message]]:
    """Each with the answer that is right."""
    return [said(f"the letter of {place}", ANSWERS[i % len(ANSWERS)]) for i, place in enumerate(PLACES)]


def guesses(count: int) -> list[list[Message]]:
    """The same questions with any answers: whoever learns this is right as often as one in so many letters."""
    draw = Random(0)
    return [said(f"the letter of {draw.choice(PLACES)}", draw.choice(ANSWERS)) for _ in range(count)]


def prompts_file(folder: Path) -> Path:
    return write(folder / "questions.jsonl", questions())


def words_for(start: Path, folder: Path, prompts: Path, **settings: str) -> list[str]:
    """Command-line overrides of the demo's recipe for a run of seconds; `section__field` sets more."""
    chosen = {
        **{name: value for name, value in SMALL.items() if name.startswith("model.")},
        "model.sequence_length": "64",
        "train.batch_tokens": "3072",  # 48 answers
        "train.device_batch": "24",
        "train.steps": "3",
        "train.log_every": "1",
        "optimizer.lr": "3e-3",
        "optimizer.warmdown_fraction": "0",
        "reinforce.samples": "8",
        "reinforce.answer_tokens": "6",
        "evaluation.every": "0",
        "evaluation.sample_every": "0",
        "tasks.mixture": str(prompts),
        "tasks.val": "",
        "tasks.cache": str(folder.parent / "cache"),
        "run.start_from": str(start),
        "run.folder": str(folder),
        **{name.replace("__", "."): value for name, value in settings.items()},
    }
    return [f"--{key}={value}" for key, value in chosen.items()]


def reinforce(overrides: list[str]) -> int:
    """Runs on a rank: the stage as the launcher would call it."""
    inputs = open_prompts(load_recipe("rl_demo", overrides))
    return run(inputs.recipe, inputs)


def never(prompt: str, completion: str, answer: str) -> float:
    """A reward for nothing at all."""
    return 0.0


def broken(prompt: str, completion: str, answer: str) -> float:
    """A reward that is no number."""
    return float("nan")
