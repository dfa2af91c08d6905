"""What an answer is worth to reinforcement learning: functions (prompt, completion, answer) -> float.

All three are texts: what was asked, what the model wrote, and the right answer. A recipe names one of those here, or
one of the user's own by its module path; without a name an answer is worth its task's mark.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable
from decimal import Decimal

from megatron_iberis.errors import InputError
from megatron_iberis.tasks.numbers import find_number

Reward = Callable[[str, str, str], float]


def number(prompt: str, completion: str, answer: str) -> float:
    """1 if both come to the same number (numbers.py), 0 otherwise."""
    found, right = find_number(completion), find_number(answer)
    return float(found is not None and right is not None and Decimal(found) == Decimal(right))


def exact(prompt: str, completion: str, answer: str) -> float:
    """1 if both are the same text, but for what stands around it."""
    return float(completion.strip() == answer.strip())


def spelling(prompt: str, completion: str, answer: str) -> float:
    """The share of the right answer's characters that stand at their place."""
    found, right = completion.strip(), answer.strip()
    same = sum(a == b for a, b in zip(found, right, strict=False))
    return same / max(len(found), len(right), 1)


REWARDS: dict[str, Reward] = {"number": number, "exact": exact, "spelling": spelling}


def load_reward(name: str) -> Reward | None:
    """The function of that name in `REWARDS`, or of that module path, "package.module:name"; None for "".

    Modules are looked for where Python looks for them, and in the folder that one is in. InputError if there is none.
    """
    if not name or name in REWARDS:
        return REWARDS.get(name)
    module, colon, function = name.partition(":")
    if not colon:
        raise InputError(
            f"reinforce.reward is {name!r}: set it to one of {', '.join(REWARDS)}, or to a function's module path, "
            "for example my_rewards:polite."
        )
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        found = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise InputError(
            f"reinforce.reward {name!r} can't be loaded ({error}): give the module's name as Python imports it, and "
            "the function's behind a colon."
        ) from None
    if not callable(found):
        raise InputError(f"reinforce.reward {name!r} is no function: name one that takes prompt, completion, answer.")
    reward: Reward = found
    return reward
