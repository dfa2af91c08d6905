"""The clients that people use: OpenAI's own, and LangChain's."""

from __future__ import annotations

import openai
import pytest
from langchain_openai import ChatOpenAI

from megatron_iberis.serving.api.settings import Settings
from megatron_iberis.tokenizer.chat import ASSISTANT_END
from tests.serving.api.conftest import Say
from tests.support.server import Running, opener, serving, tiny_model

HI = [{"role": "user", "content": "hi"}]
SOUP = ["There", " is", " soup", ".", ASSISTANT_END]


def test_openais_client_gets_an_answer(client: openai.OpenAI, say: Say) -> None:
    say(SOUP)
    answer = client.chat.completions.create(
        model="tiny",
        messages=HI,
        max_completion_tokens=20,
        n=2,
        logprobs=True,
        top_logprobs=1,
        seed=1,
        stop=["never"],
    )
    assert [choice.message.content for choice in answer.choices] == ["There is soup."] * 2
    assert {choice.finish_reason for choice in answer.choices} == {"stop"}
    assert answer.choices[0].logprobs.content[0].top_logprobs[0].logprob == -0.5
    assert answer.usage.prompt_tokens_details.cached_tokens >= 0
    assert answer.seed == 1
    assert answer._request_id


def test_openais_client_streams(client: openai.OpenAI, say: Say) -> None:
    say(SOUP)
    stream = client.chat.completions.create(
        model="tiny", messages=HI, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(c.choices[0].delta.content or "" for c in chunks[:-1]) == "There is soup."
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].usage.completion_tokens > 3


def test_openais_stream_helper_puts_the_answer_together(client: openai.OpenAI, say: Say) -> None:
    say(SOUP)
    with client.chat.completions.stream(model="tiny", messages=HI) as stream:
        events = [event.type for event in stream]
        assert stream.get_final_completion().choices[0].message.content == "There is soup."
    assert "content.done" in events


def test_openais_client_completes(client: openai.OpenAI, say: Say) -> None:
    say([*"abc"])
    extras = {"top_k": 5, "min_p": 0.1, "repetition_penalty": 1.2}
    answer = client.completions.create(
        model="tiny", prompt="x", max_tokens=3, echo=True, logprobs=1, logit_bias={"50": -1}, extra_body=extras
    )
    assert answer.choices[0].text == "xabc"
    assert len(answer.choices[0].logprobs.tokens) == 4
    assert (
        "".join(
            c.choices[0].text for c in client.completions.create(model="tiny", prompt="x", stream=True, max_tokens=3)
        )
        == "abc"
    )


def test_openais_client_lists_the_model(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["tiny"]
    assert client.models.retrieve("tiny").id == "tiny"


def test_openais_client_knows_the_errors(client: openai.OpenAI, server: Running) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        client.chat.completions.create(model="gpt-6", messages=HI)
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError, match="take turns"):
        client.chat.completions.create(model="tiny", messages=HI * 2)
    with pytest.raises(openai.UnprocessableEntityError):
        client.chat.completions.create(model="tiny", messages=HI, temperature="hot")  # type: ignore[arg-type]
    with pytest.raises(openai.NotFoundError, match="/v1/chat/completions"):
        client.responses.create(model="tiny", input="hi")
    with serving(opener(tiny_model()), Settings("tiny", key="sesame")) as locked:
        wrong = openai.OpenAI(base_url=locked.base_url, api_key="wrong", max_retries=0)
        with pytest.raises(openai.AuthenticationError):
            wrong.models.list()
        assert openai.OpenAI(base_url=locked.base_url, api_key="sesame").models.list().data


def test_openais_client_raises_for_an_error_in_a_stream(
    client: openai.OpenAI, say: Say, monkeypatch: pytest.MonkeyPatch
) -> None:
    say(["a"])
    stream = client.chat.completions.create(model="tiny", messages=HI, stream=True)
    next(iter(stream))
    monkeypatch.setattr("megatron_iberis.inference.engine.choose", lambda *_: 1 / 0)
    with pytest.raises(openai.APIError, match="has failed"):
        list(stream)


def test_langchain_chats(server: Running, say: Say) -> None:
    say(SOUP)
    model = ChatOpenAI(base_url=server.base_url, api_key="none", model="tiny", max_retries=0, stream_usage=True)  # type: ignore[arg-type]
    talk = [("system", "Be short."), ("human", "hi"), ("ai", "Yes?"), ("human", "Is there soup?")]
    answer = model.invoke(talk)
    assert answer.content == "There is soup."
    assert answer.usage_metadata["output_tokens"] == answer.response_metadata["token_usage"]["completion_tokens"]
    assert answer.response_metadata["finish_reason"] == "stop"
    parts = list(model.stream(talk))
    assert "".join(part.content for part in parts) == "There is soup."
    assert sum(part.usage_metadata["total_tokens"] for part in parts if part.usage_metadata) > 10
