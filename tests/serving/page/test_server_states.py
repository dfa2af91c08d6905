"""A server that is loading, gone, back, or wants a key; a base model. What was typed is never lost."""

from __future__ import annotations

from typing import Any

from tests.serving.page.stub import answer, refusal
from tests.serving.page.visitor import Visitor


def notices(visitor: Visitor) -> str:
    return str(visitor.page.locator("#notices").inner_text())


def says(visitor: Visitor, words: str) -> None:
    visitor.until(f"document.getElementById('notices').innerText.includes({words!r})")


def test_loading_server_is_told_and_waited_for(visitor: Visitor) -> None:
    visitor.stub.health = {"status": "loading"}
    visitor.reload()
    assert "still being loaded" in notices(visitor)
    visitor.send("early words", wait=False)
    visitor.page.wait_for_timeout(100)
    assert visitor.page.locator("#input").input_value() == "early words"
    assert visitor.stub.bodies == []
    visitor.reload()
    assert visitor.page.locator("#input").input_value() == "early words"
    visitor.stub.health = {"status": "ok"}
    says(visitor, "The server is back.")
    visitor.page.locator("#input").press("Enter")
    visitor.until("document.getElementById('input').value === ''")
    visitor.ended()
    assert visitor.bodies() == ["early words", "Hello there."]


def test_failed_server_says_why(visitor: Visitor) -> None:
    visitor.stub.health = {"status": "failed", "reason": "model.safetensors is missing"}
    visitor.reload()
    assert "model.safetensors is missing" in notices(visitor)


def test_gone_server_is_told_and_nothing_is_lost(visitor: Visitor) -> None:
    visitor.send("one")
    visitor.write("typed before it went")
    visitor.context.set_offline(True)
    visitor.page.locator("#input").press("Enter")
    visitor.until("document.querySelectorAll('.message').length === 4 && !document.querySelector('.running')")
    assert visitor.bodies()[2] == "typed before it went"
    assert "could not be reached" in visitor.message(3).inner_text()
    says(visitor, "does not answer")
    visitor.write("typed while it was away")
    visitor.page.locator("#input").press("Enter")
    visitor.page.wait_for_timeout(100)
    assert visitor.page.locator("#input").input_value() == "typed while it was away"
    visitor.context.set_offline(False)
    says(visitor, "The server is back.")
    visitor.button("Try again").click()
    visitor.until("document.querySelectorAll('.message .body')[3].innerText === 'Hello there.'")
    assert visitor.page.locator("#input").input_value() == "typed while it was away"


def test_model_that_is_unloaded_is_told(visitor: Visitor) -> None:
    visitor.stub.answers = [refusal(503, "loading")]
    visitor.stub.health = {"status": "loading"}
    visitor.send("one")
    assert "not ready yet" in visitor.message(1).inner_text()
    says(visitor, "still being loaded")


def test_nobody_is_asked_once_the_server_is_there(visitor: Visitor) -> None:
    visitor.stub.health = {"status": "loading"}
    visitor.reload()
    visitor.stub.health = {"status": "ok"}
    says(visitor, "The server is back.")
    before = len(visitor.stub.requests)
    visitor.page.wait_for_timeout(1300)
    assert len(visitor.stub.requests) == before


def test_key_is_asked_for_and_kept_for_the_tab(visitor: Visitor) -> None:
    visitor.stub.key = "sesame"
    visitor.reload()
    assert "wants an API key" in notices(visitor)
    visitor.write("words")
    visitor.button("Enter key").click()
    field = visitor.page.locator("#key")
    assert field.get_attribute("type") == "password"
    for typed in ("wrong", "sesame"):
        field.fill(typed)
        field.press("Tab")
    visitor.until("document.getElementById('model-name').innerText === 'stub'")
    visitor.page.keyboard.press("Escape")
    visitor.page.locator("#input").press("Enter")
    visitor.until("document.getElementById('input').value === ''")
    visitor.ended()
    assert visitor.bodies() == ["words", "Hello there."]
    visitor.reload()
    assert notices(visitor) == ""
    assert "sesame" not in visitor.page.evaluate("JSON.stringify({ ...localStorage })")
    visitor.stub.key = "changed"
    visitor.send("more")
    assert "did not accept the API key" in visitor.message(3).inner_text()
    says(visitor, "wants an API key")


def test_drafts_are_kept_for_each_conversation(visitor: Visitor) -> None:
    visitor.send("apples")
    visitor.write("about apples")
    visitor.button("New conversation").click()
    assert visitor.page.locator("#input").input_value() == ""
    visitor.write("about something new")
    visitor.button("apples").click()
    visitor.until("document.getElementById('input').value === 'about apples'")
    visitor.reload()
    assert visitor.page.locator("#input").input_value() == "about apples"
    visitor.button("New conversation").click()
    assert visitor.page.locator("#input").input_value() == "about something new"


def test_base_model_continues_a_text(visitor: Visitor) -> None:
    visitor.stub.model["stage"] = "base"
    visitor.stub.answers = [
        answer(" a time", " **there**", base=True),
        answer(" was", base=True),
        answer(" end", base=True),
    ]
    visitor.reload()
    assert "base model" in notices(visitor)
    visitor.send("Once upon")
    assert visitor.stub.requests[-1] == ("POST", "/v1/completions")
    body: dict[str, Any] = visitor.stub.bodies[-1]
    assert body["prompt"] == "Once upon"
    assert "messages" not in body
    assert visitor.message(1).locator(".body").evaluate("body => body.textContent") == " a time **there**"
    visitor.button("Continue").click()
    visitor.until("document.querySelector('.assistant .body').textContent === ' a time **there** was'")
    assert visitor.stub.bodies[-1]["prompt"] == "Once upon a time **there**"
    visitor.send(", in short, the")
    assert visitor.stub.bodies[-1]["prompt"] == "Once upon a time **there** was, in short, the"


def test_page_works_below_a_path(visitors: Any) -> None:
    visitor = visitors(go=False)
    visitor.address += "below/a/path/"
    visitor.go()
    visitor.send("one")
    assert visitor.bodies() == ["one", "Hello there."]
    assert visitor.elsewhere() == []


def test_server_that_says_little_is_enough(visitor: Visitor) -> None:
    visitor.stub.model = {"id": "plain"}
    visitor.reload()
    visitor.send("one")
    assert visitor.page.locator("#context").inner_text() == "Context 23"
