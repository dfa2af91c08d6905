"""`Application`: the whole server as one ASGI app. From the outside in:

count answers -> known hosts, request id -> CORS, if any -> key, JSON, size -> FastAPI: errors, routes -> Service
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import HTMLResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

import megatron_iberis
from megatron_iberis.serving.api import chat, completions, docs, state
from megatron_iberis.serving.api.errors import answer_errors
from megatron_iberis.serving.api.generation_thread import GenerationThread
from megatron_iberis.serving.api.metrics import Metrics
from megatron_iberis.serving.api.opened import Opened
from megatron_iberis.serving.api.security import Guarded, OnlyKnownHosts
from megatron_iberis.serving.api.service import Service
from megatron_iberis.serving.api.settings import Settings
from megatron_iberis.serving.page import headers_for, page


class Application:
    """See above. open_model: called on the generation thread; failed: called in the loop if that thread fails.

    prefill_tokens: of prompts in a step that others wait for, and alone: in one that nobody waits for.
    """

    def __init__(
        self,
        settings: Settings,
        open_model: Callable[[], Opened],
        prefill_tokens: int = 32,
        alone: int = 256,
        failed: Callable[[], None] = lambda: None,
    ) -> None:
        self.settings = settings
        self.metrics = Metrics(lambda: self.thread.running, lambda: self.thread.open - self.thread.running)
        self.thread = GenerationThread(open_model, prefill_tokens, alone, self.metrics.step_done, failed)
        self.api = self._api()
        app: ASGIApp = Guarded(self.api, settings.key, settings.body_limit)
        if settings.origins:
            methods, headers = ["GET", "POST"], ["Authorization", "Content-Type", "X-Request-Id"]
            app = CORSMiddleware(app, settings.origins, methods, headers, expose_headers=["X-Request-Id"])
        self._outermost: ASGIApp = OnlyKnownHosts(app, settings.hosts, settings.any_address)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                self.metrics.responses.labels(message["status"]).inc()
            await send(message)

        await self._outermost(scope, receive, counted if scope["type"] == "http" else send)

    def _api(self) -> FastAPI:
        @asynccontextmanager
        async def lifespan(app: FastAPI) -> AsyncIterator[None]:
            self.thread.start()
            yield
            self.thread.stop(0)
            await self.thread.ended(5.0)

        api = FastAPI(
            title="megatron_iberis",
            version=megatron_iberis.__version__,
            description="OpenAI's chat and text completions, answered by a Saint Iberis model.",
            lifespan=lifespan,
            docs_url=None,
            redoc_url=None,
        )
        api.state.service = Service(self.settings, self.thread, self.metrics)
        answer_errors(api)
        for module in (chat, completions, state, docs):
            api.include_router(module.router)
        api.add_api_route("/", _page, include_in_schema=False)
        return api


async def _page() -> Response:
    nonce = secrets.token_urlsafe(16)
    return HTMLResponse(page(nonce), headers=headers_for(nonce))
