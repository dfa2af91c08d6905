"""What answers look like, for /openapi.json and /docs. They are made as plain dictionaries; a test compares."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel

from megatron_iberis.serving.api.errors import ErrorBody

_Finish = Literal["stop", "length"]


class PromptTokensDetails(BaseModel):
    """Of a prompt's tokens."""

    cached_tokens: int


class Usage(BaseModel):
    """Tokens."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails


class _Answer(BaseModel):
    id: str
    created: int
    model: str
    system_fingerprint: str
    seed: int
    usage: Usage


class TopLogprob(BaseModel):
    """A token that might have been chosen."""

    token: str
    logprob: float
    bytes: list[int]


class TokenLogprob(TopLogprob):
    """A token that was chosen."""

    top_logprobs: list[TopLogprob]


class ChatLogprobs(BaseModel):
    """Of an answer."""

    content: list[TokenLogprob]
    refusal: None


class AssistantMessage(BaseModel):
    """An answer."""

    role: Literal["assistant"]
    content: str
    refusal: None


class ChatChoice(BaseModel):
    """One of the answers."""

    index: int
    message: AssistantMessage
    logprobs: ChatLogprobs | None
    finish_reason: _Finish


class ChatCompletion(_Answer):
    """What /v1/chat/completions gives where nothing is streamed."""

    object: Literal["chat.completion"]
    choices: list[ChatChoice]


class CompletionLogprobs(BaseModel):
    """Of an answer, and of its prompt with echo."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


class CompletionChoice(BaseModel):
    """One of the answers."""

    index: int
    text: str
    logprobs: CompletionLogprobs | None
    finish_reason: _Finish


class Completion(_Answer):
    """What /v1/completions gives where nothing is streamed."""

    object: Literal["text_completion"]
    choices: list[CompletionChoice]


class Model(BaseModel):
    """A model that is served."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    max_model_len: int | None
    """Tokens of prompt and answer together; null while it is being loaded."""
    chat: bool | None
    """Whether it takes part in conversations."""


class Models(BaseModel):
    """All of them."""

    object: Literal["list"]
    data: list[Model]


class Health(BaseModel):
    """Whether the server can answer."""

    status: Literal["loading", "ok", "stopping", "failed"]
    model: str
    running: int
    queued: int
    error: dict[str, str | None] | None = None


ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorBody} for status in (400, 401, 403, 404, 413, 415, 422, 429, 500, 503)
}
_STREAM: dict[str, Any] = {"content": {"text/event-stream": {}}}
CHAT_ANSWERS: dict[int | str, dict[str, Any]] = {200: {"model": ChatCompletion, **_STREAM}, **ERRORS}
COMPLETION_ANSWERS: dict[int | str, dict[str, Any]] = {200: {"model": Completion, **_STREAM}, **ERRORS}
