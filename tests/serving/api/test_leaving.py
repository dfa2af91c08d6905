"""Clients that leave, wait too long, or are too many; and a server that is told to stop."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any

import pytest

from megatron_iberis.inference.engine import Engine
from megatron_iberis.serving.api.settings import Settings
from tests.serving.api.conftest import Say
from tests.support.server import Running, opener, serving, tiny_model

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
HI = [{"role": "user", "content": "hi"}]
LONG = {"messages": HI, "max_tokens": 250}


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch, say: Say) -> None:
    """Steps of 20 ms, and answers that do not end by themselves."""
    say(["a"])
    step = Engine.step

    def slowly(engine: Engine) -> Any:
        time.sleep(0.02)
        return step(engine)

    monkeypatch.setattr(Engine, "step", slowly)


@pytest.fixture
def small(slow: None) -> Iterator[Running]:
    """One answer at a time, and two may wait."""
    settings = Settings("tiny", max_requests=1, queue=2, grace=1.0, comment_every=0.1)
    with serving(opener(tiny_model(), max_requests=1), settings) as running:
        yield running


def ended(server: Running, end: str) -> float:
    return server.application.metrics.answers.labels(end)._value.get()


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
def test_a_client_that_leaves_frees_its_slot(small: Running, path: str, stream: bool) -> None:
    body = {**LONG, "prompt": "x", "stream": stream}
    connection = small.send(path, body)
    small.wait_until(lambda: small.application.thread.running == 1)
    connection.close()
    left = time.monotonic()
    small.wait_for_idle()
    assert time.monotonic() - left < 1, "a step takes 20 ms, and the whole answer 5 s"
    small.wait_until(lambda: ended(small, "cancelled") == 1)


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_the_queue_is_forgotten(small: Running, stream: bool) -> None:
    thread = small.application.thread
    running = small.send(CHAT, LONG)
    small.wait_until(lambda: thread.running == 1)
    queued = small.send(CHAT, {**LONG, "stream": stream})
    small.wait_until(lambda: thread.open == 2)
    queued.close()
    small.wait_until(lambda: thread.open == 1, seconds=1)
    assert thread.running == 1
    running.close()
    small.wait_for_idle()


def test_a_client_that_leaves_while_its_prompt_is_read_frees_its_slot(slow: None) -> None:
    with serving(opener(tiny_model()), prefill_tokens=1, alone=1) as server:
        connection = server.send(COMPLETIONS, {"prompt": "word " * 40})
        server.wait_until(lambda: server.application.thread.running == 1)
        connection.close()
        left = time.monotonic()
        server.wait_for_idle()
        assert time.monotonic() - left < 1


def test_what_there_is_no_room_for_is_429_with_retry_after(small: Running) -> None:
    connections = [small.send(CHAT, LONG)]
    small.wait_until(lambda: small.application.thread.running == 1)
    connections += [small.send(CHAT, LONG) for _ in range(2)]
    small.wait_until(lambda: small.application.thread.open == 3)
    assert small.ask("GET", "/health")[2]["queued"] == 2
    status, headers, body = small.ask("POST", CHAT, LONG)
    assert (status, body["error"]["type"]) == (429, "rate_limit_error")
    assert 1 <= int(headers["retry-after"]) <= 60
    for connection in connections:
        connection.close()
    small.wait_for_idle()
    assert small.ask("POST", CHAT, {"messages": HI, "max_tokens": 2})[0] == 200


def test_a_stream_that_waits_says_so(small: Running) -> None:
    running = small.send(CHAT, LONG)
    small.wait_until(lambda: small.application.thread.running == 1)
    waiting = small.send(CHAT, {"messages": HI, "max_tokens": 2, "stream": True})
    received = b""
    while received.count(b"\n: ") < 3:
        received += waiting.recv(4096)
    head, _, events = received.partition(b"\r\n\r\n")
    assert b"200 OK" in head
    assert b'"role":"assistant"' in events
    running.close()
    while b"[DONE]" not in received:
        received += waiting.recv(4096)
    waiting.close()


def test_an_answer_that_takes_too_long_is_cut(slow: None) -> None:
    with serving(opener(tiny_model()), Settings("tiny", time_limit=0.5)) as server:
        status, _, body = server.ask("POST", CHAT, LONG)
        assert (status, body["choices"][0]["finish_reason"]) == (200, "length")
        assert 1 <= body["usage"]["completion_tokens"] < 100
        assert len(body["choices"][0]["message"]["content"]) == body["usage"]["completion_tokens"]


def test_an_answer_that_does_not_begin_in_time_is_503(slow: None) -> None:
    settings = Settings("tiny", time_limit=0.3)
    with serving(opener(tiny_model()), settings, prefill_tokens=1, alone=1) as server:
        status, headers, body = server.ask("POST", COMPLETIONS, {"prompt": "word " * 40})
        assert (status, body["error"]["code"]) == (503, "time")
        assert headers["retry-after"]


def stop(server: Running) -> None:
    server.server.should_exit = True


def test_a_server_that_stops_lets_short_answers_end(small: Running) -> None:
    connection = small.send(CHAT, {"messages": HI, "max_tokens": 8, "stream": True})
    small.wait_until(lambda: small.application.thread.running == 1)
    stop(small)
    assert b"[DONE]" in read_all(connection)
    small.thread.join(5)
    assert not small.thread.is_alive()


def test_a_server_that_stops_ends_long_streams_with_a_reason(small: Running) -> None:
    streams = [small.send(CHAT, {**LONG, "stream": True})]
    small.wait_until(lambda: small.application.thread.running == 1)
    streams += [small.send(CHAT, {**LONG, "stream": True}), small.send(CHAT, LONG)]
    small.wait_until(lambda: small.application.thread.open == 3)
    stop(small)
    received = [read_all(stream) for stream in streams]
    for one in received:
        assert b'"code": "stopping"' in one
        assert b"[DONE]" not in one
    assert received[0].count(b'"content"') > 3, "what was said until then has arrived"
    assert received[2].startswith(b"HTTP/1.1 503")
    small.thread.join(5)
    assert not small.thread.is_alive()


def read_all(connection: Any) -> bytes:
    received = b""
    with contextlib.suppress(ConnectionResetError):
        while part := connection.recv(65536):
            received += part
    connection.close()
    return received


def test_nothing_is_lost_by_clients_that_come_and_go(server: Running, say: Say) -> None:
    """A small soak: benchmarks/serve.py has the large one."""
    say(["a"])
    opened = server.application.thread.opened
    assert opened is not None
    memory = opened.engine.memory
    server.wait_for_idle()
    for number in range(150):
        body = {"messages": HI, "max_tokens": 60, "stream": number % 2 == 0, "n": 1 + number % 3}
        connection = server.send(CHAT, body)
        if number % 5 == 0:
            connection.recv(100)
        if number % 7 == 0:
            read_all(connection)
        connection.close()
    server.wait_for_idle()
    assert opened.engine.idle
    opened.engine.kept.clear()
    assert memory.free_slots == 64
    assert memory._rows.free == memory.tokens
