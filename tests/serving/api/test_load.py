"""Many at once: all are answered, and nobody waits for a long prompt. benchmarks/serve.py measures."""

from __future__ import annotations

import statistics
import time
from typing import Any

import pytest

from megatron_iberis.inference.engine import Engine
from megatron_iberis.serving.api.pace import PrefillPace
from tests.serving.api.conftest import Say
from tests.serving.api.test_leaving import read_all
from tests.support.server import Running, opener, serving, tiny_model

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"


def test_health_answers_at_once_while_64_streams_run(server: Running, say: Say) -> None:
    say(["a"])
    questions = [[{"role": "user", "content": f"hi {number}"}] for number in range(64)]
    streams = [server.send(CHAT, {"messages": one, "max_tokens": 150, "stream": True}) for one in questions]
    server.wait_until(lambda: server.application.thread.running == 64)
    seconds = []
    while server.application.thread.running == 64:
        started = time.perf_counter()
        assert server.ask("GET", "/health")[2]["running"] <= 64
        seconds.append(time.perf_counter() - started)
    assert len(seconds) >= 5
    assert statistics.median(seconds) < 0.05
    for stream in streams:
        received = read_all(stream)
        assert received.count(b'"content":"a"') == 150
        assert b"data: [DONE]" in received


@pytest.mark.parametrize(("usual", "a_token", "wanted"), [(40, 1, 32), (25, 2.5, 8), (30, 1.8, 16), (20, 50, 1)])
def test_as_much_of_a_prompt_is_read_as_doubles_a_step(usual: float, a_token: float, wanted: int) -> None:
    pace = PrefillPace(32)
    for _ in range(5):
        pace.note(usual, 0)
    for _ in range(10):
        read = pace.tokens
        pace.note(usual + a_token * read, read)
    assert pace.tokens == wanted
    pace.note(100 * usual, pace.tokens)  # something else was in the way: it recovers
    assert pace.tokens == 1
    for _ in range(6):
        pace.note(usual + a_token * pace.tokens, pace.tokens)
    assert pace.tokens == wanted


def test_a_long_prompt_is_read_in_small_parts_while_others_are_answered(
    say: Say, monkeypatch: pytest.MonkeyPatch
) -> None:
    say(["a"])
    steps: list[tuple[int, int]] = []
    run = Engine._run

    def seen(engine: Engine, chunks: Any) -> Any:
        answering = sum(bool(request.answer) for request in engine._running)
        steps.append((answering, sum(len(chunk.ids) for chunk in chunks if len(chunk.ids) > 1)))
        return run(engine, chunks)

    monkeypatch.setattr(Engine, "_run", seen)
    with serving(opener(tiny_model()), prefill_tokens=5, alone=40) as server:
        streams = [server.send(COMPLETIONS, {"prompt": "x", "max_tokens": 100, "stream": True}) for _ in range(3)]
        server.wait_until(lambda: bool(steps) and steps[-1][0] == 3)
        long = server.ask("POST", COMPLETIONS, {"prompt": "word " * 40, "max_tokens": 1})[2]
        assert long["usage"]["prompt_tokens"] > 60
        assert all(b"[DONE]" in read_all(stream) for stream in streams)
        alone = server.ask("POST", COMPLETIONS, {"prompt": "other " * 30, "max_tokens": 1})[2]
        assert alone["usage"]["prompt_tokens"] > 60
    assert max(tokens for answering, tokens in steps if answering) == 5
    assert max(tokens for answering, tokens in steps if not answering) == 40
