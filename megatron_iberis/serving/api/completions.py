"""POST /v1/completions."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from megatron_iberis.inference.sampling import Choice
from megatron_iberis.serving.api.answers import Ask, Part, Scored
from megatron_iberis.serving.api.logprobs import TokenNames, completion_logprobs
from megatron_iberis.serving.api.openapi import COMPLETION_ANSWERS
from megatron_iberis.serving.api.replies import Reply, Whole
from megatron_iberis.serving.api.schemas import CompletionRequest
from megatron_iberis.serving.api.service import Service
from megatron_iberis.tokenizer import Tokenizer

router = APIRouter()


@dataclass(frozen=True)
class Prompt:
    """A text, or what the ids of one spell."""

    text: str
    ids: list[int]
    added: int
    """Ids before those of the text: the one that opens a document."""

    @staticmethod
    def of(given: str | list[int], tokenizer: Tokenizer) -> Prompt:
        """InputError for what is no text, ids outside the vocabulary among it."""
        if isinstance(given, str):
            return Prompt(given, [tokenizer.bos_id, *tokenizer.encode(given)], 1)
        if all(0 <= i < tokenizer.vocab_size for i in given):
            return Prompt(tokenizer.decode(given), given, 0)
        return Prompt("", given, 0)  # the engine refuses it

    def scored(self, choices: list[Choice], names: TokenNames) -> list[Scored | tuple[int, int]]:
        """Its tokens with their scores; choices: of all ids but the first, which has none."""
        offsets = names.offsets(self.ids[self.added :])
        unscored = [] if self.added else [(self.ids[0], 0)]
        scored = [Scored(c, at) for c, at in zip(choices, offsets[len(unscored) :], strict=True)]
        return [*unscored, *scored]


class CompletionForm:
    """A `replies.Form`. names: for log-probabilities, if they are wanted; samples: answers to each prompt."""

    prefix, chunk, object = "cmpl", "text_completion", "text_completion"

    def __init__(self, names: TokenNames | None, prompts: list[Prompt], samples: int, echo: bool) -> None:
        self._names, self._prompts, self._samples = names, prompts, samples
        self._echo = echo
        self._to_echo = set(range(len(prompts) * samples)) if echo else set[int]()
        """Answers whose prompt was not told yet."""

    def opening(self, index: int) -> None:
        return None

    def parts(self, index: int, part: Part) -> list[dict[str, Any]]:
        found = []
        whole = Whole()
        whole.add(part)
        if index in self._to_echo or part.text or part.scored:
            found.append(self._choice(index, whole, None))
        if part.finish:
            found.append({"index": index, "text": "", "logprobs": None, "finish_reason": part.finish})
        return found

    def whole(self, index: int, whole: Whole) -> dict[str, Any]:
        return self._choice(index, whole, whole.finish)

    def _choice(self, index: int, whole: Whole, finish: str | None) -> dict[str, Any]:
        scored: list[Scored | tuple[int, int]] = []
        text, prompt = whole.text, self._prompts[index // self._samples]
        before = len(prompt.text) if self._echo else 0
        if index in self._to_echo:
            self._to_echo.discard(index)
            text = prompt.text + text
            if self._names:
                scored += prompt.scored(whole.prompt, self._names)
        scored += [Scored(s.choice, before + s.offset) for s in whole.scored]
        logprobs = completion_logprobs(scored, self._names) if self._names else None
        return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": finish}


@router.post("/v1/completions", response_class=Response, responses=COMPLETION_ANSWERS)
async def completions(asked: CompletionRequest, request: Request) -> Response:
    """What follows a text."""
    service: Service = request.app.state.service
    service.check_model(asked.model)
    opened = service.opened
    asked.refuse_what_there_is_not()
    given, most, stop = asked.prompts(), asked.most_tokens(), asked.stops()
    n = asked.answers(len(given), service.settings.most_answers)
    sampling = asked.sampling(asked.logprobs or 0)
    for one in given:
        service.check_text(len(one))
    prompts = await asyncio.to_thread(lambda: [Prompt.of(one, opened.tokenizer) for one in given])
    echo, scores = bool(asked.echo), asked.logprobs is not None
    asks = [
        Ask(
            prompt.ids,
            sampling,
            service.most_tokens(len(prompt.ids), most),
            stop,
            sample,
            score_prompt=echo and (scores or most == 0),
        )
        for prompt in prompts
        for sample in range(n)
    ]
    form = CompletionForm(opened.names if scores else None, prompts, n, echo)
    exchange = service.ask(asks, request)
    return await Reply(service, form, exchange, n, asked.usage_wanted).response(request, bool(asked.stream))
