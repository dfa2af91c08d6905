"""A generator that says what it is told to: for those who show answers. As a program, `iberis chat` with it."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from megatron_iberis.command import run
from megatron_iberis.inference.pieces import Finish, Piece, Pieces, Usage
from megatron_iberis.inference.sampling import Sampling
from megatron_iberis.inference.text import TextStream
from megatron_iberis.serving.terminal.session import Session
from megatron_iberis.serving.terminal.settings import Settings
from megatron_iberis.serving.terminal.talk import talk
from megatron_iberis.tokenizer import SPECIALS, Tokenizer


@dataclass
class Asked:
    """A request as it came."""

    prompt: list[int]
    sampling: Sampling
    max_tokens: int
    tools: bool


@dataclass
class Scripted:
    """Says its answers in turn, and over again."""

    tokenizer: Tokenizer
    answers: Sequence[Sequence[str]]
    """Each is a list of texts and of specials' names."""
    context: int = 400
    pause: float = 0.0
    """Seconds before each token."""
    first: float = 0.0
    """Seconds before the first, which nothing interrupts."""
    asked: list[Asked] = field(default_factory=list)
    closed: int = 0
    """Answers that were given up before their end."""

    def generate(
        self, prompt: list[int], sampling: Sampling, max_tokens: int, stop: Sequence[str] = (), tools: bool = False
    ) -> Pieces:
        parts = self.answers[len(self.asked) % len(self.answers)]
        self.asked.append(Asked(prompt, sampling, max_tokens, tools))
        ids = [
            i for p in parts for i in ([self.tokenizer.specials[p]] if p in SPECIALS else self.tokenizer.encode(p))
        ]
        ended = len(ids) <= min(max_tokens, self.context - len(prompt))
        ids = ids[: min(max_tokens, self.context - len(prompt))]
        stream, started = TextStream(self.tokenizer, stop), time.perf_counter()
        time.sleep(self.first)
        try:
            for token in ids:
                time.sleep(self.pause)
                yield Piece(stream.push(token), [token])
        except GeneratorExit:
            self.closed += 1
            raise
        finish: Finish = "stop" if ended else "length"
        usage = Usage(len(prompt), 3, len(ids), 0.25, 0.25 + time.perf_counter() - started)
        yield Piece(stream.finish(), [], finish, usage)


def main() -> int:
    """argv: tokenizer's folder, JSON of {answers, is_chat, context, pause, first, prompt, settings, system}."""
    given = json.loads(sys.argv[2])
    names = ("answers", "context", "pause", "first")
    generator = Scripted(Tokenizer.load(Path(sys.argv[1])), **{name: given[name] for name in names if name in given})
    settings = Settings()
    for name, value in given.get("settings", {}).items():
        settings = settings.with_value(name, value)
    session = Session(generator, given.get("is_chat", True), settings, given.get("system", ""))
    code = talk(session, "small", given.get("prompt"))
    if "asked" in given:  # what the model was asked, for the test to see
        texts = [generator.tokenizer.decode(asked.prompt) for asked in generator.asked]
        Path(given["asked"]).write_text(json.dumps({"prompts": texts, "closed": generator.closed}))
    return code


if __name__ == "__main__":
    assert "torch" not in sys.modules, "the terminal waits for nothing that it does not need"
    os.environ.setdefault("PROMPT_TOOLKIT_NO_CPR", "1")  # nobody answers where the cursor is
    sys.exit(run(main, interrupted=""))
