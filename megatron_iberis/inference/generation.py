"""Answers as text: the engine's ids, one request at a time, through stop strings and the calculator."""

from __future__ import annotations

import time
from collections.abc import Sequence

from megatron_iberis.inference.engine import Engine
from megatron_iberis.inference.load import LoadedModel
from megatron_iberis.inference.pieces import Piece, Pieces, Usage
from megatron_iberis.inference.requests import Request
from megatron_iberis.inference.sampling import Sampling
from megatron_iberis.inference.text import TextStream
from megatron_iberis.inference.tools import ToolUse
from megatron_iberis.tokenizer import Tokenizer
from megatron_iberis.tokenizer.chat import ASSISTANT_END


def stop_ids(tokenizer: Tokenizer) -> list[int]:
    """The ids that end an answer: the end of a turn, and the beginning of another document."""
    end = tokenizer.specials.get(ASSISTANT_END)
    return [tokenizer.bos_id] if end is None else [tokenizer.bos_id, end]


class ModelGenerator:
    """A loaded model as a `pieces.Generator`; what was asked before speeds up what begins alike."""

    def __init__(self, model: LoadedModel, prefill_tokens: int = 512) -> None:
        self.tokenizer, self.context = model.tokenizer, model.recipe.model.sequence_length
        self.engine = Engine(model.decoder, 1, prefill_tokens, vocabulary=model.tokenizer.vocab_size)

    def generate(
        self, prompt: list[int], sampling: Sampling, max_tokens: int, stop: Sequence[str] = (), tools: bool = False
    ) -> Pieces:
        """As `pieces.Generator.generate`."""
        stream = TextStream(self.tokenizer, stop)
        forced = ToolUse(self.tokenizer).push if tools else (lambda token: ())
        request = self.engine.submit(prompt, sampling, max_tokens, stop_ids(self.tokenizer), forced=forced)
        pieces = self._pieces(request, stream)
        next(pieces)  # from here on, closing it cancels the request
        return pieces

    def complete(self, text: str, max_tokens: int, sampling: Sampling) -> str:
        """What follows a text, to the end of the document at most."""
        prompt = [self.tokenizer.bos_id, *self.tokenizer.encode(text)]
        return "".join(piece.text for piece in self.generate(prompt, sampling, max_tokens))

    def _pieces(self, request: Request, stream: TextStream) -> Pieces:
        started, first = time.perf_counter(), 0.0
        try:
            yield Piece("")
            while request.finish is None and not stream.stopped:
                tokens = [token.id for _, token in self.engine.step()]
                first = first or (time.perf_counter() - started if tokens else 0.0)
                ids = tokens[:-1] if request.finish == "stop" else tokens
                text = "".join(map(stream.push, ids))
                yield Piece(text, ids)  # empty while the prompt is read: the answer can be given up then
        finally:
            self.engine.cancel(request)
        if request.error:
            raise request.error
        usage = Usage(
            len(request.prompt), request.cached_tokens, len(request.answer), first, time.perf_counter() - started
        )
        yield Piece(stream.finish(), [], "length" if request.finish == "length" else "stop", usage)
