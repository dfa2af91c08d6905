"""The page on the server that `iberis serve` starts, with a tiny model: they speak the same language."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from megatron_iberis.inference.sampling import choose
from megatron_iberis.serving.api.settings import Settings
from tests.serving.page.visitor import Visitor
from tests.support.server import Running, opener, serving, tiny_model


@pytest.fixture(scope="module")
def chat_server() -> Iterator[Running]:
    with serving(opener(tiny_model()), Settings("tiny", key="sesame")) as running:
        yield running


@pytest.fixture(scope="module")
def base_server() -> Iterator[Running]:
    with serving(opener(tiny_model(stage="base"))) as running:
        yield running


def at(visitors: Any, server: Running, **options: Any) -> Visitor:
    visitor = visitors(go=False, **options)
    visitor.address = server.address + "/"
    visitor.go()
    return visitor


def always_the_same(visitor: Visitor, tokens: int) -> None:
    """The likeliest tokens, so many: random weights don't end an answer by themselves."""
    visitor.page.evaluate("iberis.settings.set('temperature', 0)")
    visitor.page.evaluate("most => iberis.settings.set('maxTokens', most)", tokens)


def text_of_answer(visitor: Visitor) -> str:
    return str(visitor.page.evaluate("[...iberis.app.path()].at(-1).text"))


def test_conversation_with_the_server(visitors: Any, chat_server: Running) -> None:
    visitor = at(visitors, chat_server)
    assert "wants an API key" in visitor.page.locator("#notices").inner_text()
    visitor.button("Enter key").click()
    visitor.page.locator("#key").fill("sesame")
    visitor.page.locator("#key").press("Tab")
    visitor.until("document.getElementById('model-name').innerText === 'tiny'")
    always_the_same(visitor, 12)
    visitor.page.keyboard.press("Escape")
    visitor.send("こんにちは")
    first = text_of_answer(visitor)
    assert first
    assert "of 256" in visitor.page.locator("#context").inner_text()
    assert "The answer was cut" in visitor.message(1).inner_text()
    visitor.button("Continue").click()
    visitor.until("iberis.app.path().at(-1).usage.completion > 12 && !document.querySelector('.running')")
    assert text_of_answer(visitor).startswith(first)
    assert len(text_of_answer(visitor)) > len(first)
    visitor.send("and then?")
    visitor.button("Answer anew").last.click()
    visitor.until("document.querySelectorAll('.branches').length === 1 && !document.querySelector('.running')")
    assert visitor.page.evaluate("iberis.app.path().every((message) => ['stop', 'length'].includes(message.finish))")
    assert visitor.elsewhere() == []


def test_stopping_frees_the_servers_slot(
    visitors: Any, chat_server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slowly(*arguments: Any, **named: Any) -> Any:
        time.sleep(0.02)
        return choose(*arguments, **named)

    monkeypatch.setattr("megatron_iberis.inference.engine.choose", slowly)
    visitor = at(visitors, chat_server, prepare="sessionStorage.setItem('iberis.key', 'sesame')")
    always_the_same(visitor, 240)
    visitor.send("tell me", wait=False)
    visitor.until("iberis.app.path().at(-1)?.text")
    visitor.page.keyboard.press("Escape")
    visitor.ended()
    chat_server.wait_for_idle()
    assert visitor.page.evaluate("iberis.app.path().at(-1).finish") == "stopped"


def test_what_is_too_long_is_told_in_the_servers_words(visitors: Any, chat_server: Running) -> None:
    visitor = at(visitors, chat_server, prepare="sessionStorage.setItem('iberis.key', 'sesame')")
    visitor.send("word " * 400)
    assert "The server said:" in visitor.message(1).locator(".notice").inner_text()


def test_base_model_of_the_server_continues(visitors: Any, base_server: Running) -> None:
    visitor = at(visitors, base_server)
    assert "base model" in visitor.page.locator("#notices").inner_text()
    always_the_same(visitor, 8)
    visitor.send("Once upon a time")
    assert text_of_answer(visitor)
    visitor.button("Continue").click()
    visitor.until("iberis.app.path().at(-1).usage.completion > 8")
