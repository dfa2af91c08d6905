"""/v1/completions: texts and ids, echo, log-probabilities as the evaluation harness reads them."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from megatron_iberis.inference.requests import Request
from megatron_iberis.tokenizer import Tokenizer
from tests.serving.api.conftest import Say
from tests.support.decoding import random_weights, reference
from tests.support.server import CONTEXT, Running, tiny_model

PATH = "/v1/completions"
TEXT = "The ferry leaves 朝の港"


def whole(server: Running, **fields: Any) -> Any:
    status, _, body = server.ask("POST", PATH, {"max_tokens": 5, **fields})
    assert status == 200, body
    return body


def likelihoods(ids: list[int]) -> torch.Tensor:
    """log P of every id at each place, [T, V], by the reference."""
    config = tiny_model().recipe.model
    with torch.no_grad():
        return reference(config, random_weights(config))(torch.tensor([ids]))[0].log_softmax(-1)


def test_a_completion_has_openais_form(server: Running, say: Say) -> None:
    say([" at", " noon", "<|bos|>"])
    body = whole(server, prompt=TEXT, model="tiny")
    assert body["id"].startswith("cmpl-")
    assert body["object"] == "text_completion"
    assert body["choices"] == [{"index": 0, "text": " at noon", "logprobs": None, "finish_reason": "stop"}]
    assert set(body["usage"]) == {"prompt_tokens", "completion_tokens", "total_tokens", "prompt_tokens_details"}
    assert whole(server, prompt=TEXT, max_tokens=None)["usage"]["completion_tokens"] <= 16


def test_a_stream_of_completions(server: Running, say: Say) -> None:
    say([*"abcdef"])
    events = server.events(PATH, {"prompt": ["x", "y"], "max_tokens": 4, "stream_options": {"include_usage": True}})
    assert events.pop() == "[DONE]"
    assert events.pop()["choices"] == []
    choices = [c for e in events for c in e["choices"]]
    for index in range(2):
        own = [c for c in choices if c["index"] == index]
        assert "".join(c["text"] for c in own) == "abcd"
        assert [c["finish_reason"] for c in own] == [None] * 4 + ["length"]


def test_a_text_begins_a_document_and_ids_are_taken_as_they_are(
    server: Running, asked: list[Request], tokenizer: Tokenizer
) -> None:
    whole(server, prompt=TEXT)
    whole(server, prompt=tokenizer.encode(TEXT))
    whole(server, prompt="<|bos|><|user_start|>")
    ids = [request.prompt.tolist() for request in asked]
    assert ids[0] == [tokenizer.bos_id, *tokenizer.encode(TEXT)]
    assert ids[1] == tokenizer.encode(TEXT)
    assert [i for i in ids[2] if i in tokenizer.specials.values()] == [tokenizer.bos_id]


@pytest.mark.parametrize("n", [1, 2])
def test_several_prompts_are_answered_in_their_order(server: Running, asked: list[Request], n: int) -> None:
    prompts = [[7, 8, 9], [10, 11], [12, 13, 14, 15]]
    body = whole(server, prompt=prompts, n=n, temperature=0)
    assert [c["index"] for c in body["choices"]] == list(range(3 * n))
    assert body["usage"]["prompt_tokens"] == 9
    for number, prompt in enumerate(prompts):
        alone = whole(server, prompt=prompt, temperature=0)["choices"][0]["text"]
        assert [c["text"] for c in body["choices"][number * n : (number + 1) * n]] == [alone] * n


def test_the_scores_of_an_echoed_prompt_are_the_models(server: Running, tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode(TEXT)
    choice = whole(server, prompt=ids, echo=True, logprobs=2, max_tokens=1, temperature=0)["choices"][0]
    told = choice["logprobs"]
    wanted = likelihoods(ids)
    assert len(told["tokens"]) == len(told["top_logprobs"]) == len(told["text_offset"]) == len(ids) + 1
    assert told["token_logprobs"][0] is told["top_logprobs"][0] is None
    own = wanted[:-1].gather(1, torch.tensor(ids[1:]).unsqueeze(1)).squeeze(1)
    assert told["token_logprobs"][1:-1] == pytest.approx(own.tolist(), abs=1e-4)
    best = wanted.max(-1).values
    assert [max(top.values()) for top in told["top_logprobs"][1:]] == pytest.approx(best.tolist(), abs=1e-4)
    assert choice["text"].startswith(TEXT)
    for name, at, after in zip(told["tokens"], told["text_offset"], [*told["text_offset"][1:], None], strict=True):
        if not name.startswith("bytes:"):
            assert choice["text"][at:after] == name


def test_an_echoed_prompt_can_be_scored_alone(server: Running) -> None:
    ids = [20, 21, 22, 23]
    scored = whole(server, prompt=ids, echo=True, logprobs=1, max_tokens=1)["choices"][0]["logprobs"]
    alone = whole(server, prompt=ids, echo=True, logprobs=1, max_tokens=0)
    assert alone["usage"]["completion_tokens"] == 0
    assert alone["choices"][0]["finish_reason"] == "length"
    told = alone["choices"][0]["logprobs"]
    assert told["tokens"] == scored["tokens"][:-1]
    assert told["token_logprobs"][1:] == pytest.approx(scored["token_logprobs"][1:-1], abs=1e-5)
    assert whole(server, prompt="x", max_tokens=0, echo=True)["choices"][0]["text"] == "x"
    full = whole(server, prompt=[20] * CONTEXT, echo=True, logprobs=1, max_tokens=0)["choices"][0]["logprobs"]
    assert len(full["tokens"]) == CONTEXT


def test_an_echo_without_scores_is_the_text(server: Running, say: Say) -> None:
    say([*"abc"])
    fields = {"prompt": ["x 東", "y"], "echo": True, "max_tokens": 3, "n": 2}
    assert [c["text"] for c in whole(server, **fields)["choices"]] == ["x 東abc"] * 2 + ["yabc"] * 2
    events = server.events(PATH, fields)[:-1]
    texts = ["".join(c["text"] for e in events for c in e["choices"] if c["index"] == index) for index in range(4)]
    assert texts == ["x 東abc"] * 2 + ["yabc"] * 2


def test_streamed_scores_are_those_of_the_whole(server: Running) -> None:
    fields = {"prompt": TEXT, "echo": True, "logprobs": 1, "max_tokens": 6, "seed": 8}
    choice = whole(server, **fields)["choices"][0]
    parts = [c for e in server.events(PATH, fields)[:-1] for c in e["choices"]]
    assert "".join(c["text"] for c in parts) == choice["text"]
    for name, wanted in choice["logprobs"].items():
        found = [one for c in parts if c["logprobs"] for one in c["logprobs"][name]]
        if name in ("tokens", "text_offset"):
            assert found == wanted
        elif name == "token_logprobs":
            assert found == pytest.approx(wanted, abs=1e-4)
    text = TEXT.encode()
    assert choice["logprobs"]["token_logprobs"][0] is not None, "a text has a document's beginning before it"
    assert choice["logprobs"]["text_offset"][0] == 0
    assert choice["text"].encode().startswith(text)


def test_no_two_tokens_have_the_same_name(server: Running, tokenizer: Tokenizer) -> None:
    opened = server.application.thread.opened
    assert opened is not None
    names = [opened.names[i] for i in range(tokenizer.vocab_size)]
    assert len(set(names)) == len(names)
    for i in tokenizer.encode("The ferry leaves the harbour, 朝"):
        assert names[i] == tokenizer.decode([i]) or names[i].startswith("bytes:")


@pytest.mark.parametrize(
    ("fields", "status", "about"),
    [
        ({"prompt": []}, 400, "empty"),
        ({"prompt": [[]]}, 400, "empty"),
        ({"prompt": [5, 999_999]}, 400, "999999"),
        ({"prompt": [-1]}, 400, "-1"),
        ({"prompt": {"a": 1}}, 422, "prompt"),
        ({"prompt": None}, 422, "prompt"),
        ({}, 422, "prompt"),
        ({"prompt": "x", "max_tokens": 0}, 400, "echo"),
        ({"prompt": "x", "max_tokens": "many"}, 422, "max_tokens"),
        ({"prompt": "x", "logprobs": 21}, 400, "0 to 20"),
        ({"prompt": "x", "suffix": "y"}, 400, "suffix"),
        ({"prompt": "x", "best_of": 3}, 400, "best_of"),
        ({"prompt": ["x"] * 100, "n": 2}, 400, "200 answers"),
        ({"prompt": [20] * CONTEXT}, 400, "context"),
        ({"prompt": "a\ud800"}, 400, "surrogate"),
    ],
)
def test_what_cant_be_done_is_told(server: Running, fields: dict[str, Any], status: int, about: str) -> None:
    for stream in (False, True):
        found, _, body = server.ask("POST", PATH, {**fields, "stream": stream})
        assert (found, body["error"]["type"]) == (status, "invalid_request_error")
        assert about in body["error"]["message"]
