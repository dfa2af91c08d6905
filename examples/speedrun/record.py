"""What of a plan is done: FOLDER/speedrun.json, written after every command.

    {"plan": "d20", "steps": {"base": {"commands": [[...]], "done": 1, "seconds": 11821.3}, ...}}

`seconds` are those that a stage's commands ran, in all attempts; of one that was killed together with this program
they are not known, and not counted.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from examples.speedrun.plan import Plan, Stage
from megatron_iberis.errors import InputError
from megatron_iberis.storage.atomic import write_json

NAME = "speedrun.json"


class Record:
    """The record of the plan's folder, empty if there is none. InputError if it is damaged or another plan's."""

    def __init__(self, plan: Plan) -> None:
        self.path = plan.folder / NAME
        self._plan, self._steps = plan.name, dict[str, Any]()
        try:
            value = json.loads(self.path.read_text(encoding="utf-8"))
            found, self._steps = value["plan"], dict(value["steps"])
        except FileNotFoundError:
            return
        except (ValueError, KeyError, TypeError):
            raise InputError(f"{self.path} is damaged: remove it; what is finished is not made again.") from None
        if found != plan.name:
            raise InputError(f"{plan.folder} is the folder of a speedrun {found}: name another one (--folder).")

    def done(self, stage: Stage) -> int:
        """How many of its commands are done; 0 if they were others."""
        step = self._steps.get(stage.name, {})
        return int(step["done"]) if step.get("commands") == [list(words) for words in stage.commands] else 0

    def finished(self, stage: Stage) -> bool:
        """Whether all of them are; or, with nothing recorded, whether what the stage makes is there."""
        if stage.name not in self._steps and stage.makes and Path(stage.makes).exists():
            return True
        return self.done(stage) == len(stage.commands)

    def seconds(self, stage: Stage) -> float:
        """What its commands took so far."""
        return float(self._steps.get(stage.name, {}).get("seconds", 0.0))

    def forget(self, stage: Stage) -> None:
        """It is to be run again."""
        self._steps.pop(stage.name, None)

    def add(self, stage: Stage, done: int, seconds: float) -> None:
        """So many of its commands are done, after so many seconds more."""
        before = self.seconds(stage) if self._same(stage) else 0.0
        self._steps[stage.name] = {
            "commands": [list(words) for words in stage.commands],
            "done": done,
            "seconds": round(before + seconds, 3),
        }
        write_json(self.path, {"plan": self._plan, "steps": self._steps})

    def _same(self, stage: Stage) -> bool:
        return self._steps.get(stage.name, {}).get("commands") == [list(words) for words in stage.commands]
