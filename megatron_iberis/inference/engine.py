"""Runs many requests on one decoder: ids in, ids out; of text it knows nothing.

* Each step runs one token of every request that is being answered, and at most `prefill_tokens` tokens of prompts in
  all, so that a long prompt does not hold up the others. Requests join and leave between steps.
* A request waits in a queue, first come first served, until it has a slot and room for all tokens that it may come
  to: then nothing can go wrong any more.
* A prompt that begins like a request before it, running or ended, takes over the keys and values of what they have in
  common, and runs only the last tokens of that again (`state.recovery_window`). One that can get more out of a prompt
  which is just being read waits for it: n samples of a prompt read it once.
* A request ends exactly once: at a stop id, at its limit, when it is cancelled at any time, or when its step fails.

Not for several threads: whoever calls `step` calls everything.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from megatron_iberis.errors import InputError
from megatron_iberis.inference.decoder import Decoder
from megatron_iberis.inference.graphs import Capture, StepGraphs, cuda_graph
from megatron_iberis.inference.prefixes import KeptPrefixes, common_prefix
from megatron_iberis.inference.requests import Finish, Forced, Request, Token
from megatron_iberis.inference.sampling import Sampling, choose, score
from megatron_iberis.inference.state import Memory, State, recovery_window
from megatron_iberis.inference.steps import Chunk, RaggedStep


class Engine:
    """See above. max_requests run at a time; memory_bytes: for keys and values, those of ended requests included.

    context: tokens of a request at most, by default the model's. vocabulary: ids below it may be chosen, by default
    all that the model has. capture: what records steps of one token a request, to replay them; by default CUDA
    graphs on a GPU, and nothing on a CPU.
    """

    def __init__(
        self,
        decoder: Decoder,
        max_requests: int = 16,
        prefill_tokens: int = 512,
        memory_bytes: int = 2**30,
        vocabulary: int = 0,
        poison: bool = False,
        capture: Capture | None = None,
        context: int = 0,
    ) -> None:
        config = decoder.config
        tokens = memory_bytes // max(1, Memory.bytes_per_token(config, decoder.dtype))
        self.decoder, self.context, self.prefill_tokens = decoder, context or config.sequence_length, prefill_tokens
        self.memory = Memory(config, tokens, max_requests, decoder.dtype, decoder.device, poison)
        if capture is None and decoder.device.type == "cuda":
            capture = cuda_graph
        self._graphs = StepGraphs(decoder, self.memory, capture) if capture else None
        self.kept = KeptPrefixes(self.memory)
        self.window = recovery_window(config)
        self.vocabulary = vocabulary or config.vocab_size
        self.read = 0
        """Tokens of prompts that the last step ran."""
        self._queue: list[Request] = []
        self._running: list[Request] = []

    def submit(
        self,
        prompt: Sequence[int],
        sampling: Sampling,
        max_tokens: int,
        stop: Sequence[int] = (),
        sample: int = 0,
        forced: Forced = lambda token: (),
        score_prompt: bool = False,
        score_from: int = 1,
        report: Sequence[int] = (),
    ) -> Request:
        """Queues a request for at most max_tokens ids, fewer where the context ends.

        sample: its number among those of the same prompt, which decides its draws together with the seed.
        score_prompt: tells the log-probabilities of the prompt's tokens, too, from number `score_from` (1 or more)
        on; max_tokens may then be 0. report: ids whose log-probabilities each choice tells. InputError for a prompt
        that is empty, or for which there is no room in the context or the memory.
        """
        if not len(prompt):
            raise InputError("the prompt is empty: give at least one token.")
        if max_tokens < (0 if score_prompt else 1):
            raise InputError(f"max_tokens is {max_tokens}: ask for at least one.")
        if len(prompt) + min(max_tokens, 1) > self.context:
            raise InputError(
                f"the prompt has {len(prompt):,} tokens and the model's context {self.context:,}, of which one must "
                "be left for the answer: shorten it."
            )
        if outside := [i for i in (*prompt, *report, *sampling.logit_bias) if not 0 <= i < self.vocabulary]:
            raise InputError(f"there is no token {outside[0]}: ids go from 0 to {self.vocabulary - 1:,}.")
        max_tokens = min(max_tokens, self.context - len(prompt))
        if len(prompt) + max_tokens > self.memory.tokens:
            raise InputError(
                f"prompt and answer may come to {len(prompt) + max_tokens:,} tokens and the memory for keys and "
                f"values holds {self.memory.tokens:,}: give it more, or ask for a shorter answer."
            )
        first_scored = max(1, score_from) if score_prompt else len(prompt)
        request = Request(prompt, sampling.seeded(), sample, max_tokens, stop, forced, first_scored, report)
        self._queue.append(request)
        return request

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do."""
        return not (self._queue or self._running)

    @property
    def queued(self) -> int:
        """Requests that have not begun."""
        return len(self._queue)

    @property
    def running(self) -> int:
        """Requests that have."""
        return len(self._running)

    def cancel(self, request: Request) -> None:
        """Ends a request, wherever it stands; one that has ended stays as it is."""
        if request.finish is None:
            if request in self._queue:
                self._queue.remove(request)
            self._end(request, "cancelled")

    def step(self) -> list[tuple[Request, Token]]:
        """Runs one step; returns the tokens that it has given, several to a request where some were forced.

        If it fails, the requests that are in it end with `error` set; one whose token can't be chosen does so alone.
        """
        self._admit()
        chunks = self._chunks()
        self.read = sum(len(chunk.ids) for request, chunk in chunks if request.reading)
        if not chunks:
            return []
        try:
            logits = self._run([chunk for _, chunk in chunks]).cpu()
        except Exception as error:
            for request, _ in chunks:
                self._fail(request, error)
            return []
        given: list[tuple[Request, Token]] = []
        parts = logits.split([chunk.logits for _, chunk in chunks])
        for request, rows in zip((request for request, _ in chunks), parts, strict=True):
            try:
                given += [(request, token) for token in self._follow(request, rows)]
            except Exception as error:
                self._fail(request, error)
        return given

    def _run(self, chunks: Sequence[Chunk]) -> torch.Tensor:
        """The logits that the chunks ask for, [N, V]; their states have then seen their tokens."""
        states = [chunk.state for chunk in chunks]
        if self._graphs and all(len(c.ids) == c.logits == 1 for c in chunks) and self._graphs.fits(states):
            return self._graphs([chunk.ids[0] for chunk in chunks], states)
        step = RaggedStep(chunks, self.memory)
        logits = self.decoder(step.tokens, step, step.wanted)
        step.commit()
        return logits

    def _admit(self) -> None:
        """Gives requests of the queue their state, in turn, while there is one."""
        while self._queue and self.memory.free_slots:
            request = self._queue[0]
            source, length, promised = self._best_prefix(request)
            if promised > length:
                return
            state = self._take(len(request.prompt) + request.max_tokens, source)
            if state is None and not self._running:  # of what was kept only the source is left, in the way
                self.kept.clear()
                source, state = None, self._take(len(request.prompt) + request.max_tokens, None)
            if state is None:
                return
            del self._queue[0]
            self._running.append(request)
            request.state = state
            if source is not None:
                self.memory.copy(source, state, length)
                self.kept.used(source)
                # The inputs of the convolutions are found by running the last tokens of the prefix again.
                request.cached_tokens = state.length = length - self.window

    def _best_prefix(self, request: Request) -> tuple[State | None, int, int]:
        """Whose keys and values to take over, and of how many tokens; and of how many, once they have been read."""
        # The tokens whose logits are wanted are run in any case: the last one, and those before any that is scored.
        own = request.prompt[: min(request.score_from, len(request.prompt)) - 1]
        best, length = self.kept.longest(own)
        promised = 0
        for other in self._running:
            assert other.state is not None
            common = common_prefix(np.array(other.ids, dtype=np.int64), own)
            if (known := min(common, other.state.known)) > length:
                best, length = other.state, known
            if other.reading:
                promised = max(promised, common)
        if length <= self.window:
            best, length = None, 0
        return best, length, promised if promised > self.window else 0

    def _take(self, tokens: int, but: State | None) -> State | None:
        """A state with room for so many tokens, made by dropping what was kept, if need be."""
        while (state := self.memory.take(tokens)) is None and self.kept.drop_oldest(but):
            pass
        return state

    def _chunks(self) -> list[tuple[Request, Chunk]]:
        """What each running request does in this step: those being answered first, one token each."""
        answers, reading, budget = [], [], self.prefill_tokens
        for request in self._running:
            state = request.state
            assert state is not None
            pending = request.ids[state.length :]
            if len(pending) == 1 and not self._scored(request):
                answers.append((request, Chunk(pending, state)))
            elif budget > 0:
                part = pending[:budget]
                budget -= len(part)
                wanted = int(len(part) == len(pending))
                if self._scored(request):
                    end = state.length + len(part)
                    wanted = min(len(part), max(wanted, end - request.score_from + 1))
                reading.append((request, Chunk(part, state, wanted)))
        return answers + reading

    @staticmethod
    def _scored(request: Request) -> bool:
        return request.score_from < len(request.prompt) and request.reading

    def _follow(self, request: Request, logits: torch.Tensor) -> list[Token]:
        """What follows from the logits [n, V] after a request's last n tokens that were run."""
        assert request.state is not None
        prompt, run = len(request.prompt), request.state.length
        if self._scored(request):
            first = run - len(logits) + 1  # the token that the first row is the distribution of
            for token, row in zip(request.ids[first:prompt], logits, strict=False):
                scored = score(row[: self.vocabulary], token, request.sampling.logprobs)
                request.prompt_choices.append(scored)
        if not len(logits) or run < len(request.ids):
            return []
        if request.max_tokens == 0:
            self._end(request, "length")
            return []
        return self._extend(request, logits[-1])

    def _extend(self, request: Request, logits: torch.Tensor) -> list[Token]:
        """Chooses a request's next token, and puts in what is forced after it."""
        ids, prompt = request.ids, len(request.prompt)
        logits, before = logits[: self.vocabulary], (ids[:prompt], ids[prompt:])
        choice = choose(logits, request.sampling, request.sample, len(ids), *before)
        if request.report:
            reported = tuple(score(logits, i, 0).logprob for i in request.report)
            choice = replace(choice, reported=reported)
        tokens = [Token(choice.id, choice)]
        ids.append(choice.id)
        if choice.id in request.stop:
            self._end(request, "stop")
        else:
            room = request.max_tokens - (len(ids) - prompt)
            tokens += [Token(i, None) for i in list(request.forced(choice.id))[:room]]
            ids += [token.id for token in tokens[1:]]
            if len(ids) - prompt >= request.max_tokens:
                self._end(request, "length")
        request.answer += tokens
        return tokens

    def _fail(self, request: Request, error: Exception) -> None:
        if request.finish is None:
            request.error = error
            self._end(request, "error")

    def _end(self, request: Request, finish: Finish) -> None:
        """The only way in which a request ends."""
        assert request.finish is None
        request.finish = finish
        if request.state is None:
            return
        self._running.remove(request)
        if finish == "error":
            self.memory.release(request.state)
        else:
            self.kept.keep(request.state, request.ids)
        request.state = None
