"""An exchange as an HTTP answer: a stream of events, or one JSON object. The two APIs differ by their `Form` alone.

* A stream: what the form opens with, a chunk for each part, a chunk with a `finish_reason` for each answer, with
  include_usage one that has no choices but the usage, and [DONE]. While nothing comes, a comment line now and then.
* What goes wrong before the stream begins has its own status; afterwards it is an event {"error": ...}, the last.
* A client that leaves ends the exchange, whether it streams or waits for the whole.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Any, Protocol

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from megatron_iberis.inference.pieces import Finish
from megatron_iberis.inference.sampling import Choice
from megatron_iberis.serving.api.answers import Part, Scored
from megatron_iberis.serving.api.errors import APIError, ClientLeft
from megatron_iberis.serving.api.service import Exchange, Service, while_there

_STREAM_HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}


@dataclass
class Whole:
    """An answer, all of it."""

    text: str = ""
    scored: list[Scored] = field(default_factory=list)
    prompt: list[Choice] = field(default_factory=list)
    finish: Finish | None = None

    def add(self, part: Part) -> None:
        """What has come."""
        self.text += part.text
        self.scored += part.scored
        self.prompt += part.prompt or []
        self.finish = part.finish or self.finish


class Form(Protocol):
    """How an API puts answers. A choice is an element of `choices`."""

    prefix: str
    """Of ids."""
    chunk: str
    """`object` in a stream."""
    object: str
    """`object` otherwise."""

    def opening(self, index: int) -> dict[str, Any] | None:
        """The choice that opens an answer's stream."""
        ...

    def parts(self, index: int, part: Part) -> list[dict[str, Any]]:
        """The choices, each in a chunk of its own, that tell a part."""
        ...

    def whole(self, index: int, whole: Whole) -> dict[str, Any]:
        """The choice that tells an answer."""
        ...


@dataclass(frozen=True)
class Reply:
    """What is to be told, and how. samples: answers to each prompt."""

    service: Service
    form: Form
    exchange: Exchange
    samples: int
    usage_wanted: bool
    """In a stream."""

    async def response(self, request: Request, stream: bool) -> Response:
        """The HTTP answer. APIError or ClientLeft if there is none."""
        if not stream:
            try:
                return await while_there(request, self._whole())
            finally:
                self.exchange.close()
        try:
            await while_there(request, self.exchange.accepted())
        except BaseException:
            self.exchange.close()
            raise
        return _EventStream(request, self.exchange, self._events())

    async def _whole(self) -> Response:
        envelope = self._envelope(self.form.object)
        wholes = [Whole() for _ in self.exchange.asks]
        await self.exchange.accepted()
        while not self.exchange.over:
            if (event := await self.exchange.next()) is not None:
                wholes[event[0]].add(event[1])
        choices = [self.form.whole(index, whole) for index, whole in enumerate(wholes)]
        body = {**envelope, "choices": choices, "usage": self._usage()}
        return Response(orjson.dumps(body), headers={"Cache-Control": "no-store"}, media_type="application/json")

    async def _events(self) -> AsyncGenerator[bytes, None]:
        envelope = self._envelope(self.form.chunk)
        if self.usage_wanted:
            envelope["usage"] = None

        def chunk(choice: dict[str, Any]) -> bytes:
            return _event(orjson.dumps({**envelope, "choices": [choice]}))

        openings = (self.form.opening(index) for index in range(len(self.exchange.asks)))
        yield b"".join(chunk(choice) for choice in openings if choice)
        self.exchange.tell_silence()
        try:
            while not self.exchange.over:
                if (event := await self.exchange.next()) is None:
                    yield b": the answer is being made\n\n"
                else:
                    yield b"".join(map(chunk, self.form.parts(*event)))
        except APIError as error:
            yield _event(error.body)
            return
        if self.usage_wanted:
            yield _event(orjson.dumps({**envelope, "choices": [], "usage": self._usage()}))
        yield _event(b"[DONE]")

    def _envelope(self, kind: str) -> dict[str, Any]:
        opened = self.service.thread.opened
        assert opened is not None
        return {
            "id": f"{self.form.prefix}-{secrets.token_hex(12)}",
            "object": kind,
            "created": int(time.time()),
            "model": self.service.settings.model,
            "system_fingerprint": f"step-{opened.step}",
            "seed": self.exchange.asks[0].sampling.seed,
        }

    def _usage(self) -> dict[str, Any]:
        count = self.exchange.usage(self.samples)
        return {
            "prompt_tokens": count.prompt,
            "completion_tokens": count.answer,
            "total_tokens": count.prompt + count.answer,
            "prompt_tokens_details": {"cached_tokens": count.cached},
        }


def _event(data: bytes) -> bytes:
    return b"data: " + data + b"\n\n"


class _EventStream(Response):
    """Server-sent events; the exchange is closed when the client leaves."""

    media_type = "text/event-stream"

    def __init__(self, request: Request, exchange: Exchange, source: AsyncGenerator[bytes, None]) -> None:
        super().__init__(headers=_STREAM_HEADERS)
        del self.headers["content-length"]
        self._request, self._exchange, self._source = request, exchange, source

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        try:
            await while_there(self._request, self._tell(send))
        except ClientLeft:
            pass
        finally:
            await self._source.aclose()
            self._exchange.close()

    async def _tell(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        async for events in self._source:
            if events:
                await send({"type": "http.response.body", "body": events, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})
