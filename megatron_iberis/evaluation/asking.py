"""`Asker`: a model's replies to questions, many at a time, through the engine of `inference/`.

* What is asked of one item mostly begins alike (few-shot examples, a question before its options). Of as many items
  as the memory has room for, the first questions are asked first: the others then find the beginning read.
* Equal questions are asked once, so equal options have equal likelihoods to the last bit.
* Sequences may be longer than the model's context, ten times at most, as upstream's positions allow. Of what is
  longer still the beginning goes, behind <|bos|>.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

from megatron_iberis.evaluation.questions import Letters, Likelihood, Question, Reply
from megatron_iberis.inference.decoder import Decoder
from megatron_iberis.inference.engine import Engine
from megatron_iberis.inference.generation import stop_ids
from megatron_iberis.inference.requests import Request
from megatron_iberis.inference.sampling import Sampling
from megatron_iberis.inference.state import Memory
from megatron_iberis.inference.text import TextStream
from megatron_iberis.inference.tools import ToolUse
from megatron_iberis.tokenizer import Tokenizer

LONGEST = 10
"""Contexts that a sequence may be long."""
_MEMORY = 2**30
_GREEDY = Sampling(temperature=0, seed=0)
_SCORED = Sampling(temperature=0, seed=0, logprobs=1)


class Asker:
    """Asks a model. batch: requests that run at a time; the replies are the same at any number."""

    def __init__(self, decoder: Decoder, tokenizer: Tokenizer, batch: int = 16, prefill_tokens: int = 2048) -> None:
        config = decoder.config
        longest = LONGEST * config.sequence_length
        a_token = max(1, Memory.bytes_per_token(config, decoder.dtype))
        tokens = max(longest, min(4 * batch * config.sequence_length, _MEMORY // a_token))
        self.tokenizer, self._longest, self._wave = tokenizer, longest, tokens // 2
        self._stop = stop_ids(tokenizer)
        # All ids that the model has are in its distribution, as in training, also those that the tokenizer lacks.
        self._engine = Engine(decoder, batch, prefill_tokens, tokens * a_token, context=longest)

    def __call__(
        self, items: Sequence[Sequence[Question]], progress: Callable[[], None] = lambda: None
    ) -> list[list[Reply]]:
        """The replies to each item's questions. progress: called between steps. InputError for what is too long."""
        asked: dict[Question, _Asked] = {}
        for wave in self._waves(items):
            for turn in range(max(map(len, wave))):
                for questions in wave:
                    if turn < len(questions) and questions[turn] not in asked:
                        asked[questions[turn]] = self._submit(questions[turn])
        of_request = {each.request: each for each in asked.values()}
        while not self._engine.idle:
            for request, token in self._engine.step():
                of_request[request].push(token.id)
            progress()
        return [[asked[question].reply() for question in questions] for questions in items]

    def _waves(self, items: Sequence[Sequence[Question]]) -> Iterator[list[Sequence[Question]]]:
        """Items whose first questions fit into the memory together."""
        wave: list[Sequence[Question]] = []
        for questions in items:
            if wave and sum(len(each[0].ids) for each in wave) + len(questions[0].ids) > self._wave:
                yield wave
                wave = []
            wave.append(questions)
        if wave:
            yield wave

    def _submit(self, question: Question) -> _Asked:
        engine = self._engine
        if isinstance(question, Likelihood):
            assert 0 < question.start < len(question.ids), "nothing is asked"
            ids = self._cut(question.ids, 0)
            start = max(1, question.start - len(question.ids) + len(ids))
            return _Asked(engine, engine.submit(ids, _SCORED, 0, score_prompt=True, score_from=start))
        if isinstance(question, Letters):
            return _Asked(engine, engine.submit(self._cut(question.ids, 1), _GREEDY, 1, report=question.letters))
        forced = ToolUse(self.tokenizer).push if question.tools else (lambda token: ())
        ids = self._cut(question.ids, min(question.tokens, self._longest // 2))
        request = engine.submit(ids, _GREEDY, question.tokens, self._stop, forced=forced)
        return _Asked(engine, request, TextStream(self.tokenizer, question.stop), self.tokenizer.vocab_size)

    def _cut(self, ids: tuple[int, ...], room: int) -> tuple[int, ...]:
        """What there is place for, with `room` more tokens after it."""
        most = self._longest - room
        return ids if len(ids) <= most else (self.tokenizer.bos_id, *ids[len(ids) - most + 1 :])


class _Asked:
    """A question on its way through the engine."""

    def __init__(self, engine: Engine, request: Request, stream: TextStream | None = None, known: int = 0) -> None:
        """known: ids below it have a text."""
        self._engine, self.request, self._stream, self._known = engine, request, stream, known
        self._text = ""
        self._reply: Reply | None = None

    def push(self, token: int) -> None:
        """Follows an answer, and ends it at a stop string."""
        if self._stream is None or self._stream.stopped or token in self.request.stop or token >= self._known:
            return
        self._text += self._stream.push(token)
        if self._stream.stopped:
            self._engine.cancel(self.request)

    def reply(self) -> Reply:
        if self.request.error:
            raise self.request.error
        if self._reply is None:
            self._reply = _scored(self.request) if self._stream is None else self._written(self._stream)
        return self._reply

    def _written(self, stream: TextStream) -> Reply:
        finish = "length" if self.request.finish == "length" and not stream.stopped else "stop"
        return Reply(ids=tuple(self.request.answer_ids), text=self._text + stream.finish(), finish=finish)


def _scored(request: Request) -> Reply:
    choices = request.prompt_choices or [token.choice for token in request.answer if token.choice]
    logprobs = choices[0].reported or tuple(choice.logprob for choice in choices)
    if not all(map(math.isfinite, logprobs)):
        raise FloatingPointError("the model's logits are not finite: its weights are damaged.")
    greedy = all(choice.top and choice.top[0][0] == choice.id for choice in request.prompt_choices)
    return Reply(logprobs, greedy and bool(request.prompt_choices))
