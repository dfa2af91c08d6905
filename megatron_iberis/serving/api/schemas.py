"""What clients send, as OpenAI's send it: every field may be null, which means its default; unknown ones are ignored.

Bounds of the sampling settings are `Sampling`'s, which says so with an InputError: 400. A field of the wrong type is
422. `top_k`, `min_p` and `repetition_penalty` are this server's own (`extra_body` of the official client).

Checking stops at the first mistake in a list: to collect all of a large one's would hold up everybody.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, FailFast, Field, WrapValidator

from megatron_iberis.inference.sampling import Sampling
from megatron_iberis.serving.api.errors import APIError

MOST_STOPS, LONGEST_STOP, MOST_BIASES = 16, 1000, 1024
_SAMPLING = [field.name for field in fields(Sampling) if field.name != "logprobs"]
MOST_ANSWERS = 128
"""`n`, at most, as OpenAI's."""


class FirstMistake(FailFast):
    """pydantic's, that can stand in a union of types, which hashes them."""

    def __hash__(self) -> int:
        return hash(FirstMistake)


class StreamOptions(BaseModel):
    """Of a stream."""

    include_usage: bool | None = Field(None, description="a last chunk that tells the usage")


class AskedFor(BaseModel):
    """What both APIs share."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)

    model: str | None = Field(None, description="its name in /v1/models; null: the one that there is")
    stream: bool | None = Field(None, description="server-sent events, one a token")
    stream_options: StreamOptions | None = None
    n: int | None = Field(None, description="answers to each prompt")
    stop: str | Annotated[list[str], FirstMistake()] | None = Field(
        None, description=f"texts that end the answer, at most {MOST_STOPS}"
    )
    max_tokens: int | None = Field(None, description="of the answer")
    temperature: float | None = Field(None, description="0: the likeliest token each time; default 1")
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: dict[int, float] | None = Field(None, description="id of a token -> -100 to 100")
    seed: int | None = Field(None, description="decides the draws; the answer tells the one that was used")

    def sampling(self, logprobs: int) -> Sampling:
        """The settings, with a seed. InputError or APIError for what is out of bounds."""
        if self.logit_bias and len(self.logit_bias) > MOST_BIASES:
            raise APIError(400, f"logit_bias can be for {MOST_BIASES:,} tokens at most.", "logit_bias")
        given = {name: value for name in _SAMPLING if (value := getattr(self, name)) is not None}
        return Sampling(**given, logprobs=logprobs).seeded()

    def stops(self) -> tuple[str, ...]:
        """The stop strings; an empty one is none, as an empty list is."""
        given = [self.stop] if isinstance(self.stop, str) else self.stop or []
        found = tuple(text for text in given if text)
        if len(found) > MOST_STOPS or any(len(text) > LONGEST_STOP for text in found):
            raise APIError(
                400, f"stop can be {MOST_STOPS} texts at most, of {LONGEST_STOP:,} characters at most each.", "stop"
            )
        return found

    def answers(self, prompts: int, most: int) -> int:
        """How many to each prompt."""
        n = 1 if self.n is None else self.n
        if not 1 <= n <= MOST_ANSWERS:
            raise APIError(400, f"n is {n}: it must be 1 to {MOST_ANSWERS}.", "n")
        if prompts * n > most:
            raise APIError(
                400, f"{prompts * n:,} answers are asked for and this server takes {most:,} at most at once.", "n"
            )
        return n

    @property
    def usage_wanted(self) -> bool:
        """In a stream."""
        return bool(self.stream_options and self.stream_options.include_usage)


class ContentPart(BaseModel):
    """Of a message."""

    model_config = ConfigDict(extra="ignore")

    type: str
    text: str | None = None


class ChatMessage(BaseModel):
    """Of a conversation."""

    model_config = ConfigDict(extra="ignore")

    role: str = Field(description="system, developer, user or assistant")
    content: str | Annotated[list[ContentPart], FirstMistake()] | None = None
    tool_calls: list[Any] | None = None
    function_call: Any = None


class ChatRequest(AskedFor):
    """A conversation to go on with. If its last message is an assistant's, the answer goes on with that message."""

    messages: Annotated[list[ChatMessage], FirstMistake()]
    max_completion_tokens: int | None = Field(None, description="as max_tokens; default: what there is room for")
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, description="0 to 20")
    tools: list[Any] | None = None
    tool_choice: Any = None
    functions: list[Any] | None = None
    function_call: Any = None
    response_format: Any = None
    modalities: Any = None
    audio: Any = None

    def refuse_what_there_is_not(self) -> None:
        """APIError for what this server can't do."""
        if (self.tools and self.tool_choice != "none") or (self.functions and self.function_call != "none"):
            raise APIError(400, "this model calls no tools: leave tools out, or set tool_choice to none.", "tools")
        if any(message.tool_calls or message.function_call for message in self.messages):
            raise APIError(400, "this model calls no tools: leave messages with tool_calls out.", "messages")
        kind = self.response_format.get("type") if isinstance(self.response_format, dict) else self.response_format
        if kind not in (None, "text"):
            raise APIError(400, f"response_format {kind!r} is not done here: use text.", "response_format")
        if self.audio or self.modalities not in (None, [], ["text"]):
            raise APIError(400, "this model says text only: leave modalities and audio out.", "modalities")

    def top(self) -> int | None:
        """How many of the likeliest tokens to tell; None: no log-probabilities."""
        count = self.top_logprobs or 0
        if not 0 <= count <= 20:
            raise APIError(400, f"top_logprobs is {count}: it must be 0 to 20.", "top_logprobs")
        if count and not self.logprobs:
            raise APIError(400, "top_logprobs needs logprobs to be true.", "top_logprobs")
        return count if self.logprobs else None

    def most_tokens(self) -> int | None:
        """Of the answer; None: what there is room for."""
        most = self.max_completion_tokens if self.max_completion_tokens is not None else self.max_tokens
        if most is not None and most < 1:
            raise APIError(400, f"max_completion_tokens is {most}: it must be at least 1.", "max_completion_tokens")
        return most

    def texts(self) -> Iterator[str]:
        """All that is said."""
        for message in self.messages:
            if isinstance(message.content, str):
                yield message.content
            else:
                yield from (part.text for part in message.content or () if part.text)

    def conversation(self) -> list[dict[str, Any]]:
        """The messages as `tokenizer.chat` takes them."""
        return [message.model_dump(include={"role", "content"}) for message in self.messages]


def _prompts(value: Any, check: Any) -> Any:
    """Instead of pydantic, which would try each kind and collect what speaks against it, element by element."""
    found = value if isinstance(value, list) else [value]
    if all(type(one) is int for one in found) and isinstance(value, list):
        return value
    if all(type(one) is str for one in found) or all(
        type(one) is list and all(type(i) is int for i in one) for one in found
    ):
        return value
    raise ValueError("must be a text, a list of texts, a list of ids, or a list of such lists")


Prompts = Annotated[str | list[int] | list[str] | list[list[int]], WrapValidator(_prompts)]


class CompletionRequest(AskedFor):
    """Texts to go on with, or ids of tokens. A text is the beginning of a document; ids are taken as they are."""

    prompt: Prompts
    echo: bool | None = Field(None, description="the prompt comes before the answer, in text and logprobs")
    logprobs: int | None = Field(None, description="0 to 20: log-probabilities, with so many likeliest tokens")
    suffix: str | None = None
    best_of: int | None = None

    def refuse_what_there_is_not(self) -> None:
        """APIError for what this server can't do."""
        if self.suffix:
            raise APIError(400, "this model can't fill in before a suffix: leave it out.", "suffix")
        if self.best_of is not None and self.best_of != (self.n or 1):
            raise APIError(400, "best_of is not done here: leave it out.", "best_of")
        if self.logprobs is not None and not 0 <= self.logprobs <= 20:
            raise APIError(400, f"logprobs is {self.logprobs}: it must be 0 to 20.", "logprobs")

    def most_tokens(self) -> int:
        """Of the answer; OpenAI's default."""
        most = 16 if self.max_tokens is None else self.max_tokens
        if most < (0 if self.echo else 1):
            raise APIError(400, f"max_tokens is {most}: it must be at least 1, or 0 with echo.", "max_tokens")
        return most

    def prompts(self) -> list[str | list[int]]:
        """One by one."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        if not self.prompt:
            raise APIError(400, "prompt is empty: give a text, or at least one id.", "prompt")
        if isinstance(self.prompt[0], int):
            return [[i for i in self.prompt if isinstance(i, int)]]
        return list(self.prompt)
