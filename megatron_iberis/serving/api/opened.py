"""`Opened`: a loaded model with its engine, as the server uses it."""

from __future__ import annotations

from dataclasses import dataclass

from megatron_iberis.errors import InputError
from megatron_iberis.inference.engine import Engine
from megatron_iberis.inference.load import LoadedModel
from megatron_iberis.serving.api.logprobs import TokenNames
from megatron_iberis.tokenizer import Tokenizer


@dataclass(frozen=True)
class Opened:
    """Made on the generation thread. is_chat: it has learned conversations; step: of its training."""

    engine: Engine
    tokenizer: Tokenizer
    is_chat: bool
    step: int
    names: TokenNames
    longest_token: int
    """Bytes."""

    @staticmethod
    def of(model: LoadedModel, max_requests: int, memory_bytes: int) -> Opened:
        """With an engine for so many requests at a time. InputError for a memory that holds next to nothing."""
        tokenizer = model.tokenizer
        engine = Engine(model.decoder, max_requests, memory_bytes=memory_bytes, vocabulary=tokenizer.vocab_size)
        if engine.memory.tokens < min(64, engine.context):
            raise InputError(
                f"the memory for keys and values holds {engine.memory.tokens:,} tokens: make --state-memory larger."
            )
        longest = int(max(1, tokenizer.token_bytes().max()))
        stage = model.recipe.run.stage
        return Opened(engine, tokenizer, stage == "chat", model.step, TokenNames(tokenizer), longest)

    def surely_too_long(self, characters: int) -> bool:
        """Whether a text can't fit in the context, whatever its tokens are: it need not be encoded to see that."""
        return characters > self.engine.context * self.longest_token
