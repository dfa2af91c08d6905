"""Which token file every sample of a mixture comes from: a formula, not a walk (it stands in csrc/order/blend.h).

* `read_mixture` reads what a recipe says: "a", "a | b" (each file once an epoch) or "0.7 a | 0.3 b" (by weight).
* `Blend` says for any sample number which file it comes from and which sample of that file it is. Among the first n
  samples those of a file of share w number n w, rounded down or up, for every n. Each file keeps its own order and
  its own epochs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from megatron_iberis import _C
from megatron_iberis.data.token_files.names import is_token_file
from megatron_iberis.errors import InputError


@dataclass(frozen=True)
class Part:
    """A token file of a mixture, and its weight where one is given. written: the part as the user wrote it."""

    path: str
    weight: Fraction | None
    written: str


def read_mixture(text: str) -> list[Part]:
    """The parts of a mixture, separated by "|", each a path or a weight and a path.

    A weight is a positive decimal number or fraction; only their proportions count. A path may hold spaces and begin
    with a number, and a whole text that names a token file is its path. Raises InputError when a path is missing, a
    weight is not positive, some parts have one and others have none, or a part may be read in two ways.
    """
    whole = text.strip()
    if "|" in whole and is_token_file(whole):
        return [Part(whole, None, whole)]
    parts = [_read_part(part.strip(), text) for part in text.split("|")]
    if len({part.weight is None for part in parts}) > 1:
        raise InputError(
            f"some of the files in '{text}' have a weight and some have none: give all of them one, or none (then "
            "each is read once an epoch)."
        )
    return parts


def _read_part(part: str, text: str) -> Part:
    number, path = [*part.split(None, 1), "", ""][:2]
    weight = _weight(number)
    if part and (weight is None or is_token_file(part)):
        if weight is not None and path and is_token_file(path):
            raise InputError(
                f"'{part}' in '{text}' names a token file, and so does '{path}' with {number} as its weight: write "
                f"'./{part}' for the first, or rename one of them."
            )
        return Part(part, None, part)
    if not path:
        raise InputError(f"a path is missing in '{text}': write it as 'a', 'a | b' or '0.7 a | 0.3 b'.")
    if weight is not None and weight <= 0:
        raise InputError(f"the weight {number} in '{text}' is not positive: raise it, or leave the file out.")
    return Part(path, weight, part)


def _weight(word: str) -> Fraction | None:
    """The word as a number; None when it is none, but the beginning of a path."""
    try:
        return Fraction(word)
    except (ValueError, ZeroDivisionError):
        return None


class Blend:
    """The order of a mixture of files with these weights, which need not sum up to 1.

    With the files' samples an epoch as weights each file is read exactly once an epoch of the mixture. Raises
    InputError for weights of more than 18 digits, and for a share below one in 16,777,216.
    """

    def __init__(self, weights: Sequence[Fraction | int]) -> None:
        scale = math.lcm(*(Fraction(weight).denominator for weight in weights))
        whole = [int(weight * scale) for weight in weights]
        divisor = math.gcd(*whole)
        if sum(whole) // divisor >= 2**62:
            raise InputError("the weights of the mixture have too many digits: round them.")
        self._blend = _C.Blend([weight // divisor for weight in whole])

    def locate(self, first: int, count: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Of the samples first .. first + count - 1 the file, and which sample of that file it is; both [count].

        The samples of one file follow each other without gaps.
        """
        return self._blend.locate(first, count)
