"""An answer from the engine's ids to the parts that a client gets: text, scored tokens, and how it ended.

* `Ask` goes in, `Part`s come out, one after each step that has given something to be shown, and a last one.
* The score of a token goes out with the text that it begins; what a stop string cut off has none.

Of the generation thread; nothing here knows of HTTP.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from megatron_iberis.inference.engine import Engine
from megatron_iberis.inference.generation import stop_ids
from megatron_iberis.inference.pieces import Finish
from megatron_iberis.inference.requests import Request, Token
from megatron_iberis.inference.sampling import Choice, Sampling
from megatron_iberis.inference.text import TextStream
from megatron_iberis.inference.tools import ToolUse
from megatron_iberis.tokenizer import Tokenizer


@dataclass(frozen=True)
class Ask:
    """An answer that is wanted."""

    prompt: Sequence[int]
    sampling: Sampling
    max_tokens: int
    stop: tuple[str, ...] = ()
    sample: int = 0
    """Its number among those to the same prompt."""
    tools: bool = False
    """Whether the calculator's results are put in."""
    score_prompt: bool = False
    """Whether the log-probabilities of the prompt's tokens are wanted."""


@dataclass(frozen=True)
class Scored:
    """A token that was chosen, and where its text begins in that of the answer."""

    choice: Choice
    offset: int


@dataclass(frozen=True)
class Count:
    """Tokens of an answer."""

    prompt: int
    cached: int
    answer: int


@dataclass(frozen=True)
class Part:
    """What is new of an answer; the last part, and no other, has `finish` and `count`."""

    text: str = ""
    scored: list[Scored] = field(default_factory=list)
    prompt: list[Choice] | None = None
    """Of the prompt's tokens after the first, once, if they were asked for."""
    finish: Finish | None = None
    count: Count | None = None


class Answer:
    """An answer while it is made: `push` the tokens of a step, then take the `part`."""

    def __init__(self, ask: Ask, engine: Engine, tokenizer: Tokenizer) -> None:
        """Submits it. InputError for what can't be answered."""
        self._engine = engine
        self._stream = TextStream(tokenizer, ask.stop)
        forced = ToolUse(tokenizer).push if ask.tools else (lambda token: ())
        self.request: Request = engine.submit(
            ask.prompt, ask.sampling, ask.max_tokens, stop_ids(tokenizer), ask.sample, forced, ask.score_prompt
        )
        self._prompt_wanted = ask.score_prompt
        self._given = 0
        """Characters that went out."""
        self._text = ""
        self._scored: deque[Scored] = deque()

    def push(self, token: Token) -> None:
        """A token that the engine has given."""
        if self._stream.stopped or token.id in self.request.stop:
            return
        if token.choice:
            self._scored.append(Scored(token.choice, self._given + len(self._text) + self._stream.held))
        self._text += self._stream.push(token.id)

    def part(self) -> Part | None:
        """What there is to be shown since the last time; None if nothing. A stop string ends the answer here."""
        request = self.request
        if self._stream.stopped:
            self._engine.cancel(request)
        finish = self._finish() if request.finish in ("stop", "length", "cancelled") else None
        text, self._text = self._text, ""
        prompt = None
        if self._prompt_wanted and (request.answer or finish):
            self._prompt_wanted, prompt = False, request.prompt_choices
        if not (text or finish or prompt is not None):
            return None
        self._given += len(text)
        all_out = finish is not None and not self._stream.stopped
        scored = []
        while self._scored and (all_out or self._scored[0].offset < self._given):
            scored.append(self._scored.popleft())
        count = Count(len(request.prompt), request.cached_tokens, len(request.answer)) if finish else None
        return Part(text, scored, prompt, finish, count)

    def _finish(self) -> Finish:
        self._text += self._stream.finish()
        return "stop" if self._stream.stopped or self.request.finish == "stop" else "length"
