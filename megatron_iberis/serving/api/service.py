"""`Service`: what the handlers share; `Exchange`: the answers to one HTTP request as they come."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

from starlette.requests import Request

from megatron_iberis.serving.api.answers import Ask, Count, Part
from megatron_iberis.serving.api.errors import APIError, ClientLeft
from megatron_iberis.serving.api.generation_thread import Accepted, Event, Failure, GenerationThread, Silence
from megatron_iberis.serving.api.metrics import Metrics
from megatron_iberis.serving.api.opened import Opened
from megatron_iberis.serving.api.settings import Settings

log = logging.getLogger(__name__)
_UNABLE = {
    "loading": "the model is being loaded: try again in a moment.",
    "stopping": "the server is shutting down.",
    "failed": "the model does not work: ",
}


class Service:
    """A server's settings, thread and figures."""

    def __init__(self, settings: Settings, thread: GenerationThread, metrics: Metrics) -> None:
        self.settings, self.thread, self.metrics = settings, thread, metrics
        self.started = int(time.time())

    @property
    def opened(self) -> Opened:
        """The model. APIError while it can't answer."""
        state = self.thread.state
        if state != "ok" or self.thread.opened is None:
            raise APIError(503, _UNABLE[state] + self.thread.reason, code=state)
        return self.thread.opened

    def check_model(self, name: str | None) -> None:
        """APIError for another model than the one that is served."""
        if name not in (None, "", self.settings.model):
            raise APIError(
                404,
                f"there is no model {name[:100]!r}: this server has {self.settings.model!r}.",
                "model",
                "model_not_found",
            )

    def most_tokens(self, prompt: int, wanted: int | None) -> int:
        """Of an answer to a prompt of so many tokens. APIError for a prompt that leaves no room."""
        engine = self.opened.engine
        if prompt + (wanted != 0) > engine.context:
            raise self._too_long(f"{prompt:,} tokens")
        room = min(engine.context, engine.memory.tokens) - prompt
        return max(room, 1) if wanted is None else wanted

    def check_text(self, characters: int) -> None:
        """APIError for a text that is too long by far. The most that is ever encoded takes milliseconds."""
        if self.opened.surely_too_long(characters):
            raise self._too_long(f"{characters:,} characters")

    def _too_long(self, what: str) -> APIError:
        context = self.opened.engine.context
        return APIError(
            400,
            f"the prompt has {what} and the model's context, prompt and answer together, {context:,} tokens: "
            "shorten it.",
            code="context_length_exceeded",
        )

    def ask(self, asks: Sequence[Ask], request: Request) -> Exchange:
        """Asks for answers. APIError if there are too many of them to be made."""
        self.opened  # noqa: B018  it may have stopped meanwhile
        if self.thread.open + len(asks) > self.settings.most_answers:
            raise APIError(429, "the server has as much to answer as it takes: try again in a moment.", code="busy")
        if self.settings.log_prompts:
            for ask in asks:
                log.info("%s prompt: %r", request.scope["request_id"], self.opened.tokenizer.decode(ask.prompt))
        return Exchange(self, asks, request)


class Exchange:
    """See above. Whoever has it has to `close` it: whatever of it is not over then is cancelled."""

    def __init__(self, service: Service, asks: Sequence[Ask], request: Request) -> None:
        self.asks = asks
        self._service, self._request = service, request
        self._started = self._heard = time.monotonic()
        self._job = service.thread.ask(asks, service.settings.time_limit)
        self._failed = ""
        self._first_seen = self._closed = False
        self._timer: asyncio.TimerHandle | None = None
        self.ends: dict[int, Part] = {}
        """The last part of each answer that is over."""

    @property
    def over(self) -> bool:
        """Whether nothing will come any more."""
        return bool(self._failed) or len(self.ends) == len(self.asks)

    def close(self) -> None:
        """Nobody waits for it any more."""
        if self._closed:
            return
        self._closed = True
        if self._timer:
            self._timer.cancel()
        if not self.over:
            self._service.thread.cancel(self._job)
        self._account()

    def tell_silence(self) -> None:
        """Has `next` give None each time that nothing has come for a while."""
        now, every = time.monotonic(), self._service.settings.comment_every
        if now - self._heard >= every:
            self._heard = now
            self._job.events.put_nowait(Silence())
        self._timer = asyncio.get_running_loop().call_later(self._heard + every - now, self.tell_silence)

    async def accepted(self) -> None:
        """Waits until the engine has taken it. APIError if it does not."""
        event = await self._event()
        assert isinstance(event, Accepted)

    async def next(self) -> tuple[int, Part] | None:
        """The next part, of the answer with this number. APIError if there will be none any more."""
        event = await self._event()
        if isinstance(event, Silence):
            return None
        assert isinstance(event, tuple)
        index, part = event
        if not self._first_seen:
            self._first_seen = True
            self._service.metrics.first_token.observe(time.monotonic() - self._started)
        if self._service.settings.log_prompts and part.text:
            log.info("%s answer %d: %r", self._request.scope["request_id"], index, part.text)
        if part.finish:
            self.ends[index] = part
        return event

    async def _event(self) -> Event:
        event = await self._job.events.get()
        self._heard = time.monotonic()
        if isinstance(event, Failure):
            self._failed = event.why
            raise APIError.of(event)
        return event

    def usage(self, samples: int) -> Count:
        """Of all answers that are over, `samples` to each prompt, which counts once."""
        counts = {index: part.count for index, part in self.ends.items() if part.count}
        firsts = [count for index, count in counts.items() if index % samples == 0]
        return Count(
            sum(count.prompt for count in firsts),
            sum(count.cached for count in firsts),
            sum(count.answer for count in counts.values()),
        )

    def _account(self) -> None:
        metrics, seconds = self._service.metrics, time.monotonic() - self._started
        metrics.request.observe(seconds)
        for index in range(len(self.asks)):
            end = self.ends.get(index)
            metrics.answers.labels(end.finish if end else self._failed or "cancelled").inc()
            if end and end.count:
                metrics.prompt_tokens.inc(end.count.prompt)
                metrics.cached_tokens.inc(end.count.cached)
                metrics.answer_tokens.inc(end.count.answer)
        counts = [part.count for part in self.ends.values() if part.count]
        log.info(
            "%s %s: %d of %d answers, %d prompt tokens, %d answer tokens, %.2f s, %s",
            self._request.scope["request_id"],
            self._request.url.path,
            len(self.ends),
            len(self.asks),
            sum(count.prompt for count in counts),
            sum(count.answer for count in counts),
            seconds,
            self._failed or ("done" if self.over else "the client has left"),
        )


T = TypeVar("T")


async def while_there(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """What the work gives; it is cancelled, and ClientLeft raised, if the client leaves before that."""
    working, gone = asyncio.ensure_future(work), asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait({working, gone}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise ClientLeft
    finally:
        working.cancel()
        gone.cancel()
        await asyncio.gather(working, gone, return_exceptions=True)


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
