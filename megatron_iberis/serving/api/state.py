"""GET /v1/models, /health and /metrics: what the server has, and how it is."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.responses import JSONResponse, Response

from megatron_iberis.serving.api.errors import RETRY_AFTER, APIError
from megatron_iberis.serving.api.openapi import ERRORS, Health, Model, Models
from megatron_iberis.serving.api.service import Service

router = APIRouter()


def _model(service: Service) -> dict[str, Any]:
    opened = service.thread.opened
    return {
        "id": service.settings.model,
        "object": "model",
        "created": service.started,
        "owned_by": "megatron_iberis",
        "max_model_len": opened.engine.context if opened else None,
        "chat": (opened.is_chat or service.settings.force_chat) if opened else None,
    }


@router.get("/v1/models", response_model=Models, responses=ERRORS)
async def models(request: Request) -> Response:
    """The one model that there is."""
    return JSONResponse({"object": "list", "data": [_model(request.app.state.service)]})


@router.get("/v1/models/{name:path}", response_model=Model, responses=ERRORS)
async def model(name: str, request: Request) -> Response:
    """A model by its name."""
    service: Service = request.app.state.service
    service.check_model(name)
    return JSONResponse(_model(service))


@router.get("/health", response_model=Health, responses={503: {"model": Health}})
async def health(request: Request) -> Response:
    """200 if the model answers, otherwise 503 and why."""
    service: Service = request.app.state.service
    thread = service.thread
    body: dict[str, Any] = {
        "status": thread.state,
        "model": service.settings.model,
        "running": thread.running,
        "queued": thread.open - thread.running,
    }
    headers = {"Cache-Control": "no-store"}
    try:
        service.opened  # noqa: B018
    except APIError as error:
        body["error"] = error.detail.model_dump()
        return JSONResponse(body, 503, headers | {"Retry-After": str(RETRY_AFTER)})
    return JSONResponse(body, headers=headers)


@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
async def metrics(request: Request) -> Response:
    """For Prometheus."""
    service: Service = request.app.state.service
    return Response(service.metrics.text(), headers={"Content-Type": CONTENT_TYPE_LATEST})
