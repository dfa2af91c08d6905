"""Every refusal in OpenAI's form, {"error": {"message", "type", "param", "code"}}, with a status that fits the fault.

The official client tries 408, 409, 429 and 5xx again: those are never the answer to what the client has to mend.
"""

from __future__ import annotations

import json
import re
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.responses import Response

from megatron_iberis.errors import InputError
from megatron_iberis.serving.api.generation_thread import Failure

RETRY_AFTER = 2
"""Seconds after which a client may try again what there was no room for."""
_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
    500: "server_error",
    503: "service_unavailable_error",
}
_STATUS_OF_FAILURE = {"invalid": 400, "failed": 500, "time": 503, "stopping": 503}


_TYPE = re.compile(r"str|int|float|bool|.*\[.*")
"""In the place of an error: not a field, but one of the types that it may have."""
_CLIENT_LEFT = 499  # which nobody sees


class ClientLeft(Exception):  # noqa: N818
    """There is nobody to answer any more."""


class ErrorDetail(BaseModel):
    """What was wrong."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorBody(BaseModel):
    """The body of every answer that is none."""

    error: ErrorDetail


class APIError(Exception):
    """An answer that is a refusal."""

    def __init__(self, status: int, message: str, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code

    @staticmethod
    def of(failure: Failure) -> APIError:
        """What a client is told when its answer fails."""
        status = _STATUS_OF_FAILURE[failure.why]
        return APIError(status, failure.message, code=None if failure.why == "invalid" else failure.why)

    @property
    def detail(self) -> ErrorDetail:
        """As it is told."""
        kind = _TYPES.get(self.status, "invalid_request_error")
        return ErrorDetail(message=self.message, type=kind, param=self.param, code=self.code)

    @property
    def body(self) -> bytes:
        """JSON in ASCII, since the message may repeat what can't be written in UTF-8."""
        return json.dumps({"error": self.detail.model_dump()}).encode()

    @property
    def response(self) -> Response:
        """As an HTTP answer."""
        headers = {"Cache-Control": "no-store"}
        if self.status in (429, 503):
            headers["Retry-After"] = str(RETRY_AFTER)
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        return Response(self.body, self.status, headers, "application/json")


def answer_errors(app: FastAPI) -> None:
    """Has the app answer everything that goes wrong in OpenAI's form."""

    async def refusal(request: Request, error: Exception) -> Response:
        assert isinstance(error, APIError)
        return error.response

    async def input_error(request: Request, error: Exception) -> Response:
        return APIError(400, str(error).replace("sampling.", "")).response

    async def invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return _invalid(error).response

    async def http_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        response = APIError(error.status_code, _said(request, error)).response
        response.headers.update(error.headers or {})
        return response

    async def unexpected(request: Request, error: Exception) -> Response:
        return APIError(500, "the server has failed: see its log.").response

    async def left(request: Request, error: Exception) -> Response:
        return Response(status_code=_CLIENT_LEFT)

    app.add_exception_handler(APIError, refusal)
    app.add_exception_handler(ClientLeft, left)
    app.add_exception_handler(InputError, input_error)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, http_error)
    app.add_exception_handler(Exception, unexpected)


def _said(request: Request, error: HTTPException) -> str:
    path = request.url.path
    if error.status_code == 404:
        if path.startswith("/v1/responses"):
            return "the Responses API is not offered here: use /v1/chat/completions."
        return f"there is nothing at {path}: /docs lists what there is."
    if error.status_code == 405:
        allowed = (error.headers or {}).get("allow") or (error.headers or {}).get("Allow")
        return f"{request.method} is not possible at {path}" + (f": use {allowed}." if allowed else ".")
    return str(error.detail) or HTTPStatus(error.status_code).phrase


def _invalid(error: RequestValidationError) -> APIError:
    """The first thing that was wrong with the body: 400 if it is no JSON object, otherwise 422 and where."""
    first: dict[str, Any] = error.errors()[0]
    where = [str(part) for part in first["loc"] if part != "body" and not _TYPE.fullmatch(str(part))]
    if first["type"] == "json_invalid":
        return APIError(400, f"the body is not JSON ({first.get('ctx', {}).get('error', 'it breaks off')}).")
    if not where:
        return APIError(400, "the body must be a JSON object with the fields that /docs lists.")
    name = ".".join(where)
    message = first["msg"].removeprefix("Value error, ")
    return APIError(422, f"{name}: {message[0].lower()}{message[1:]}.".replace("..", "."), param=where[0])
