"""How fast prompts are read while others are being answered: a step takes twice its usual time at most."""

from __future__ import annotations

SLOWER = 2.0
"""How many times its usual time a step may take."""
_FIRST = 8
_NEW = 0.2  # weight of the newest step


class PrefillPace:
    """`tokens`: of prompts, in a step that others wait for; `most` at most.

    It is a power of two, or `most`: libraries prepare anew for each size of a product that they have not seen.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.tokens = min(most, _FIRST)
        self._usual = 0.0

    def note(self, seconds: float, read: int) -> None:
        """A step that gave others their tokens took so long, and read so many tokens of prompts."""
        if not read:
            self._usual = (1 - _NEW) * self._usual + _NEW * seconds if self._usual else seconds
        elif self._usual:
            extra = max(seconds - self._usual, 1e-3 * self._usual)
            allowed = min((SLOWER - 1) * self._usual / extra * read, 2 * self.tokens)
            self.tokens = self.most if allowed >= self.most else 1 << max(0, int(allowed).bit_length() - 1)
