"""`Answering`: prompts -> groups of answers by the weights that are being trained, shared out over all ranks.

* Every rank answers its share of the prompts with the whole model; then all ranks have all groups. Prompts are read
  once for all answers to them.
* What is drawn depends on the seed, the batch, the prompt's number and the answer's alone.
* The distribution that is drawn from is the whole one at the recipe's temperature, of all ids that the model has: so
  the log-probabilities are those that training works out.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch.distributed as dist

from megatron_iberis.config import ReinforceConfig
from megatron_iberis.errors import InputError, sentence
from megatron_iberis.inference.decoder import Decoder
from megatron_iberis.inference.engine import Engine
from megatron_iberis.inference.generation import stop_ids
from megatron_iberis.inference.requests import Request
from megatron_iberis.inference.sampling import Sampling
from megatron_iberis.inference.state import Memory
from megatron_iberis.inference.text import TextStream
from megatron_iberis.inference.tools import ToolUse
from megatron_iberis.parallel.agreement import gather_objects, raise_on_any_rank
from megatron_iberis.rollouts.answers import Answer, Group
from megatron_iberis.rollouts.prompts import Prompt
from megatron_iberis.tokenizer import Tokenizer

_REQUESTS = 64  # answers that are written at a time
_MEMORY = 2**30  # bytes of keys and values


@dataclass
class Answering:
    """Answers prompts with a decoder. progress: called now and then."""

    decoder: Decoder
    tokenizer: Tokenizer
    settings: ReinforceConfig
    progress: Callable[[], None] = lambda: None

    def __call__(self, prompts: Sequence[Prompt], samples: int, seed: str) -> list[Group]:
        """A group for each prompt, in their order; called by all ranks together, with the same arguments.

        InputError on all ranks when a reward function fails on one of them.
        """
        rank, ranks, problem = dist.get_rank(), dist.get_world_size(), None
        own: list[Group] = []
        try:
            own = self._groups(prompts[rank::ranks], samples, seed)
        except Exception as error:  # the other ranks wait for this one's word
            problem = sentence(error) or f"answering prompts failed on rank {rank} ({error!r})"
        raise_on_any_rank(problem)
        found = {group.prompt: group for groups in gather_objects(own) for group in groups}
        return [found[prompt.number] for prompt in prompts]

    def _groups(self, prompts: Sequence[Prompt], samples: int, seed: str) -> list[Group]:
        if not prompts:
            return []
        engine = self._engine()
        asked = {prompt.number: self._ask(engine, prompt, samples, seed) for prompt in prompts}
        while not engine.idle:
            engine.step()
            self.progress()
        return [
            Group(p.number, p.ids, tuple(self._answer(p, request) for request in asked[p.number])) for p in prompts
        ]

    def _engine(self) -> Engine:
        config = self.decoder.config
        a_token = max(1, Memory.bytes_per_token(config, self.decoder.dtype))
        tokens = max(config.sequence_length, min(_REQUESTS * config.sequence_length, _MEMORY // a_token))
        return Engine(self.decoder, _REQUESTS, memory_bytes=tokens * a_token)

    def _ask(self, engine: Engine, prompt: Prompt, samples: int, seed: str) -> list[Request]:
        sampling = Sampling(self.settings.temperature, seed=_number(f"{seed} {prompt.number}"))
        stop, tokens = stop_ids(self.tokenizer), self.settings.answer_tokens
        requests = []
        for sample in range(samples):
            forced = ToolUse(self.tokenizer).push if self.settings.tools else (lambda token: ())
            requests.append(engine.submit(prompt.ids, sampling, tokens, stop, sample, forced=forced))
        return requests

    def _answer(self, prompt: Prompt, request: Request) -> Answer:
        if request.error:
            raise request.error
        stream = TextStream(self.tokenizer)
        known = [i for i in request.answer_ids if i < self.tokenizer.vocab_size]
        text = "".join(map(stream.push, known)) + stream.finish()
        finish = "stop" if request.finish == "stop" else "length"
        reward = _checked(prompt, text) if finish == "stop" else 0.0
        ids = tuple(token.id for token in request.answer)
        drawn = tuple(token.choice.drawn if token.choice else None for token in request.answer)
        return Answer(ids, drawn, text, finish, reward)


def _checked(prompt: Prompt, text: str) -> float:
    """What an answer is worth; InputError where the reward function has no number for it."""
    try:
        reward = float(prompt.worth(text))
    except Exception as error:  # it is the user's own
        raise InputError(
            f"the reward of an answer to {prompt.where} could not be worked out ({error!r}): mend the function that "
            f"reinforce.reward names; the answer was {text[:200]!r}."
        ) from error
    if not math.isfinite(reward):
        raise InputError(
            f"the reward of an answer to {prompt.where} is {reward}: mend the function that reinforce.reward names; "
            f"the answer was {text[:200]!r}."
        )
    return reward


def _number(text: str) -> int:
    """A seed that the text decides."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1
