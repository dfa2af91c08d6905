"""What those who show an answer (terminal, server) and those who make one (generation) agree on. No torch here."""

from __future__ import annotations

import collections.abc
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

from megatron_iberis.tokenizer import Tokenizer

if TYPE_CHECKING:
    from megatron_iberis.inference.sampling import Sampling

Finish = Literal["stop", "length"]
"""Why an answer is over: the model ended it or a stop string was met, or there was no room for more tokens."""


@dataclass(frozen=True)
class Usage:
    """What an answer took."""

    prompt_tokens: int
    cached_tokens: int
    """Of the prompt, that needed no computing."""
    completion_tokens: int
    seconds_to_first: float
    """From the request to the first token."""
    seconds: float
    """From the request to the end."""

    @property
    def tokens_per_second(self) -> float:
        """Of the answer, from its first token on; 0 for an answer of one token."""
        after_first = self.seconds - self.seconds_to_first
        return (self.completion_tokens - 1) / after_first if self.completion_tokens > 1 and after_first > 0 else 0.0


@dataclass(frozen=True)
class Piece:
    """A step of an answer: the text that can be shown now, and the tokens that came, which may be ahead of it.

    Both may be empty, as in the steps that read the prompt: between any two pieces the answer can be given up.

    The last piece of an answer, and no other, has `finish` and `usage`; what was held back until then is its text.
    """

    text: str
    ids: list[int] = field(default_factory=list)
    finish: Finish | None = None
    usage: Usage | None = None


Pieces = collections.abc.Generator[Piece, None, None]
"""An answer while it is made; `close()` cancels it."""


class Generator(Protocol):
    """Answers one request at a time."""

    tokenizer: Tokenizer
    context: int
    """Tokens at most, prompt and answer together."""

    def generate(
        self, prompt: list[int], sampling: Sampling, max_tokens: int, stop: Sequence[str] = (), tools: bool = False
    ) -> Pieces:
        """The answer to `prompt`, at most max_tokens ids and what the context has room for.

        tools: the calculator's results are put in. InputError for a prompt that leaves no room in the context.
        """
        ...
