"""A server that is loading, gone, back, or wants a key; a base model. What was typed is never lost."""

from __future__ import annotations

from typing import Any

from tests.serving.page.stub import answer, refusal
from tests.serving.page.visitor import Visitor


def notices(visitor: Visitor) -> str:
    return str(visitor.page.locator("#notices").inner_text())


def says(visitor: Visitor, words: str) -> None:
    visitor.until(f"document.getElementById('notices').innerText.includes({words!r})")


def test_loading_server_is_told_and_waited_for(newcomer: Visitor) -> None:
    newcomer.stub.health = {"status": "loading"}
    newcomer.go()
    assert "still being loaded" in notices(newcomer)
    newcomer.send("early words", wait=False)
    newcomer.page.wait_for_timeout(100)
    assert newcomer.page.locator("#input").input_value() == "early words"
    assert newcomer.stub.bodies == []
    newcomer.reload()
    assert newcomer.page.locator("#input").input_value() == "early words"
    newcomer.stub.health = {"status": "ok"}
    says(newcomer, "The server is back.")
    newcomer.page.locator("#input").press("Enter")
    newcomer.until("document.getElementById('input').value === ''")
    newcomer.ended()
    assert newcomer.bodies() == ["early words", "Hello there."]
    # Nobody is asked once the server is there.
    before = len(newcomer.stub.requests)
    newcomer.page.wait_for_timeout(1200)
    assert len(newcomer.stub.requests) == before


def test_failed_server_says_why(newcomer: Visitor) -> None:
    newcomer.stub.health = {"status": "failed", "reason": "model.safetensors is missing"}
    newcomer.go()
    assert "model.safetensors is missing" in notices(newcomer)


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


def test_key_is_asked_for_and_kept_for_the_tab(newcomer: Visitor) -> None:
    newcomer.stub.key = "sesame"
    newcomer.go()
    assert "wants an API key" in notices(newcomer)
    newcomer.write("words")
    newcomer.button("Enter key").click()
    field = newcomer.page.locator("#key")
    assert field.get_attribute("type") == "password"
    newcomer.stub.think = 0.3  # the right key is there before the wrong one is refused
    for typed in ("wrong", "sesame"):
        field.fill(typed)
        field.press("Tab")
    newcomer.until("document.getElementById('model-name').innerText === 'stub'")
    newcomer.stub.think = 0.0
    newcomer.page.keyboard.press("Escape")
    newcomer.page.locator("#input").press("Enter")
    newcomer.until("document.getElementById('input').value === ''")
    newcomer.ended()
    assert newcomer.bodies() == ["words", "Hello there."]
    newcomer.reload()
    assert notices(newcomer) == ""
    assert "sesame" not in newcomer.page.evaluate("JSON.stringify({ ...localStorage })")
    newcomer.stub.key = "changed"
    newcomer.send("more")
    assert "did not accept the API key" in newcomer.message(3).inner_text()
    says(newcomer, "wants an API key")


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


def test_server_that_says_little_is_enough(newcomer: Visitor) -> None:
    newcomer.stub.model = {"id": "plain"}
    newcomer.go()
    newcomer.send("one")
    assert newcomer.page.locator("#context").inner_text() == "Context 23"
