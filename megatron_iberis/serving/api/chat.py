"""POST /v1/chat/completions."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from megatron_iberis.serving.api.answers import Ask, Part
from megatron_iberis.serving.api.errors import APIError
from megatron_iberis.serving.api.logprobs import TokenNames, chat_logprobs
from megatron_iberis.serving.api.openapi import CHAT_ANSWERS
from megatron_iberis.serving.api.replies import Reply, Whole
from megatron_iberis.serving.api.schemas import ChatRequest
from megatron_iberis.serving.api.service import Service
from megatron_iberis.tokenizer.chat import render_for_completion

router = APIRouter()


class ChatForm:
    """A `replies.Form`. names: for log-probabilities, if they are wanted."""

    prefix, chunk, object = "chatcmpl", "chat.completion.chunk", "chat.completion"

    def __init__(self, names: TokenNames | None) -> None:
        self._names = names

    def opening(self, index: int) -> dict[str, Any]:
        return _choice(index, {"role": "assistant", "content": ""})

    def parts(self, index: int, part: Part) -> list[dict[str, Any]]:
        found = []
        if part.text or part.scored:
            logprobs = chat_logprobs(part.scored, self._names) if self._names else None
            found.append(_choice(index, {"content": part.text}, logprobs))
        if part.finish:
            found.append(_choice(index, {}, finish=part.finish))
        return found

    def whole(self, index: int, whole: Whole) -> dict[str, Any]:
        return {
            "index": index,
            "message": {"role": "assistant", "content": whole.text, "refusal": None},
            "logprobs": chat_logprobs(whole.scored, self._names) if self._names else None,
            "finish_reason": whole.finish,
        }


def _choice(index: int, delta: dict[str, str], logprobs: Any = None, finish: str | None = None) -> dict[str, Any]:
    return {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish}


@router.post("/v1/chat/completions", response_class=Response, responses=CHAT_ANSWERS)
async def chat_completions(asked: ChatRequest, request: Request) -> Response:
    """The next message of a conversation."""
    service: Service = request.app.state.service
    service.check_model(asked.model)
    opened = service.opened
    if not opened.is_chat and not service.settings.force_chat:
        raise APIError(
            400,
            "this is a base model, which continues a text and has learned no conversations: use /v1/completions, or "
            "start the server with --force-chat.",
            code="base_model",
        )
    asked.refuse_what_there_is_not()
    top, most, stop = asked.top(), asked.most_tokens(), asked.stops()
    n = asked.answers(1, service.settings.most_answers)
    sampling = asked.sampling(top or 0)
    conversation = asked.conversation()
    service.check_text(sum(len(text) for text in asked.texts()))
    prompt = await asyncio.to_thread(render_for_completion, opened.tokenizer, conversation)
    most = service.most_tokens(len(prompt), most)
    asks = [Ask(prompt, sampling, most, stop, sample, tools=True) for sample in range(n)]
    form = ChatForm(None if top is None else opened.names)
    exchange = service.ask(asks, request)
    return await Reply(service, form, exchange, n, asked.usage_wanted).response(request, bool(asked.stream))
