"""Whatever goes wrong, the body is OpenAI's, and the status is one that clients act rightly upon."""

from __future__ import annotations

import http.client
import json
import threading
import time
from typing import Any

import pytest
from pydantic import ValidationError

from megatron_iberis.errors import InputError
from megatron_iberis.inference.engine import Engine
from megatron_iberis.serving.api.opened import Opened
from megatron_iberis.serving.api.schemas import ChatRequest, CompletionRequest
from megatron_iberis.serving.api.settings import Settings
from tests.serving.api.conftest import Say
from tests.support.server import Running, opener, serving, tiny_model

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
HI = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 4}


def error_of(body: Any) -> Any:
    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert isinstance(body["error"]["message"], str)
    assert isinstance(body["error"]["type"], str)
    return body["error"]


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "about"),
    [
        ("POST", CHAT, b"{", 400, "not JSON"),
        ("POST", CHAT, b"", 400, "JSON object"),
        ("POST", CHAT, b"[]", 400, "JSON object"),
        ("POST", CHAT, b'"text"', 400, "JSON object"),
        ("POST", CHAT, b"null", 400, "JSON object"),
        ("POST", CHAT, b"\xff\xfe", 400, ""),
        ("POST", CHAT, b'{"a":' * 40_000, 400, ""),
        ("POST", CHAT, b'{"messages": "x"}', 422, "messages"),
        ("POST", CHAT, {**HI, "temperature": "hot"}, 422, "temperature"),
        ("POST", CHAT, json.dumps({**HI, "temperature": float("nan")}).encode(), 422, "temperature"),
        ("POST", CHAT, {**HI, "logit_bias": {"a": 1}}, 422, "logit_bias"),
        ("POST", CHAT, {**HI, "model": "gpt-6"}, 404, "'gpt-6'"),
        ("POST", CHAT, {**HI, "model": "\ud800"}, 404, "model"),
        ("GET", "/v1/models/gpt-6", None, 404, "'gpt-6'"),
        ("GET", "/v1/nothing", None, 404, "/v1/nothing"),
        ("POST", "/v1/responses", {}, 404, "/v1/chat/completions"),
        ("GET", CHAT, None, 405, "POST"),
        ("DELETE", "/health", None, 405, "GET"),
        ("POST", CHAT, b" " * (2**20 + 1), 413, "1,048,576"),
    ],
)
def test_every_refusal_has_openais_body(
    server: Running, method: str, path: str, body: Any, status: int, about: str
) -> None:
    found, headers, told = server.ask(method, path, body)
    assert found == status, told
    assert about in error_of(told)["message"]
    assert headers["x-request-id"].startswith("req-")


def test_a_model_that_there_is_not_is_model_not_found(server: Running) -> None:
    _, _, body = server.ask("POST", CHAT, {**HI, "model": "gpt-6"})
    assert (body["error"]["code"], body["error"]["param"]) == ("model_not_found", "model")
    assert server.ask("GET", "/v1/models/tiny")[2]["id"] == "tiny"
    assert server.ask("POST", CHAT, {**HI, "model": None})[0] == 200


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (COMPLETIONS, {"prompt": [1] * 340_000 + ["x"]}),
        (COMPLETIONS, {"prompt": [[1]] * 170_000 + [["x"]]}),
        (COMPLETIONS, {"prompt": [None] * 170_000}),
        (COMPLETIONS, {"prompt": "x", "stop": [1] * 300_000}),
        (CHAT, {"messages": [{}] * 240_000}),
        (CHAT, {"messages": [{"role": "user", "content": [{}] * 240_000}]}),
    ],
)
def test_of_a_large_wrong_list_the_first_mistake_is_told(server: Running, path: str, body: Any) -> None:
    """Collecting all of them would keep the event loop busy for many times as long as reading the body does."""
    schema = CompletionRequest if path == COMPLETIONS else ChatRequest
    with pytest.raises(ValidationError) as found:
        schema.model_validate(body)
    assert found.value.error_count() <= 4
    sent = json.dumps(body, separators=(",", ":")).encode()
    started = time.perf_counter()
    json.loads(sent)
    reading = time.perf_counter() - started
    started = time.perf_counter()
    status, _, told = server.ask("POST", path, sent)
    assert time.perf_counter() - started < 0.5 + 3 * reading
    assert status == 422
    assert len(error_of(told)["message"]) < 200


def test_a_body_without_a_length_is_limited_too(server: Running) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    parts = (b" " * 2**16 for _ in range(17))
    try:
        connection.request("POST", CHAT, parts, {"Content-Type": "application/json"}, encode_chunked=True)
        assert connection.getresponse().status == 413
    except (BrokenPipeError, ConnectionResetError):
        pytest.fail("the answer must be there to be read")
    finally:
        connection.close()


def test_a_request_id_is_the_clients_own_if_it_is_harmless(server: Running) -> None:
    assert server.ask("GET", "/health", headers={"X-Request-Id": "mine-7"})[1]["x-request-id"] == "mine-7"
    assert server.ask("GET", "/health", headers={"X-Request-Id": "a b"})[1]["x-request-id"] != "a b"


def test_a_failing_step_ends_its_requests_and_the_server_goes_on(
    server: Running, say: Say, monkeypatch: pytest.MonkeyPatch
) -> None:
    say(["a"])
    steps = 0
    run = Engine._run

    def failing(*arguments: Any) -> Any:
        nonlocal steps
        steps += 1
        if steps % 3 == 0:
            raise RuntimeError("out of memory, secret prompt")
        return run(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Engine, "_run", failing)
        status, _, body = server.ask("POST", CHAT, HI)
        assert status == 500
        assert error_of(body)["type"] == "server_error"
        assert "secret" not in body["error"]["message"]
        events = server.events(CHAT, HI)
        assert events[0]["choices"][0]["delta"]["role"] == "assistant"
        assert error_of(events[-1])["code"] == "failed"
    assert server.ask("GET", "/health")[0] == 200
    assert server.ask("POST", CHAT, HI)[0] == 200


def test_an_engine_that_dies_turns_health_red(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(opener(tiny_model())) as server:
        with monkeypatch.context() as patch:
            patch.setattr(Engine, "_admit", lambda engine: 1 / 0)
            status, _, body = server.ask("POST", CHAT, HI)
            assert status == 500
            assert "ZeroDivisionError" in error_of(body)["message"]
        status, _, body = server.ask("GET", "/health")
        assert (status, body["status"]) == (503, "failed")
        assert "ZeroDivisionError" in body["error"]["message"]
        assert server.ask("POST", CHAT, HI)[0] == 503
        assert server.ask("GET", "/v1/models")[0] == 200


def test_a_model_that_is_being_loaded_is_said_to_be() -> None:
    loaded = threading.Event()

    def open_model() -> Opened:
        loaded.wait(20)
        return opener(tiny_model())()

    with serving(open_model, ready=False) as server:
        status, headers, body = server.ask("GET", "/health")
        assert (status, body["status"], body["error"]["code"]) == (503, "loading", "loading")
        status, headers, body = server.ask("POST", CHAT, HI)
        assert (status, error_of(body)["code"]) == (503, "loading")
        assert headers["retry-after"]
        loaded.set()
        server.wait_until(lambda: server.ask("GET", "/health")[0] == 200)
        assert server.ask("POST", CHAT, HI)[0] == 200


def test_a_model_that_cant_be_loaded_is_told_with_the_reason() -> None:
    def open_model() -> Opened:
        raise InputError("the checkpoint is damaged: copy it again.")

    with serving(open_model) as server:
        status, _, body = server.ask("GET", "/health")
        assert (status, body["status"]) == (503, "failed")
        assert "the checkpoint is damaged" in body["error"]["message"]
        assert "the checkpoint is damaged" in error_of(server.ask("POST", CHAT, HI)[2])["message"]


def test_a_base_model_completes_and_refuses_to_chat() -> None:
    with serving(opener(tiny_model("base"))) as server:
        assert server.ask("POST", COMPLETIONS, {"prompt": "x", "max_tokens": 2})[0] == 200
        status, _, body = server.ask("POST", CHAT, HI)
        assert (status, error_of(body)["code"]) == (400, "base_model")
        assert "/v1/completions" in body["error"]["message"]
        assert server.ask("GET", "/v1/models")[2]["data"][0]["chat"] is False
    with serving(opener(tiny_model("base")), Settings("tiny", force_chat=True)) as server:
        assert server.ask("POST", CHAT, HI)[0] == 200
