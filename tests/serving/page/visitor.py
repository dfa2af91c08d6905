"""Somebody with the page open, in a profile of their own: what they see, do, and what leaves the browser."""

from __future__ import annotations

import time
from typing import Any

from tests.serving.page.stub import Stub

PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}


class Visitor:
    def __init__(self, browser: Any, stub: Stub, go: bool = True, prepare: str = "", **options: Any) -> None:
        self.stub = stub
        self.address = stub.url
        desk = {"locale": "en-US", "viewport": {"width": 1280, "height": 800}, "reduced_motion": "reduce"}
        options = {**desk, **options}
        self.context = browser.new_context(**options)
        self.context.set_default_timeout(8000)
        if prepare:
            self.context.add_init_script(prepare)
        self.errors: list[str] = []
        self.requests: list[str] = []
        self.dialogs: list[str] = []
        self.page = self.opened()
        if go:
            self.go()

    def opened(self) -> Any:
        page = self.context.new_page()
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", self.said)
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("dialog", lambda dialog: (self.dialogs.append(dialog.message), dialog.dismiss()))
        return page

    def said(self, message: Any) -> None:
        # Refused requests are in the console as well; what counts here is the page's own faults and its policy.
        if message.type == "error" and "Failed to load resource" not in message.text:
            self.errors.append(message.text)

    def forget(self) -> None:
        """Nothing of who was here before; the page is not open."""
        self.page.goto("about:blank")
        session = self.context.new_cdp_session(self.page)
        session.send("Storage.clearDataForOrigin", {"origin": self.address.rstrip("/"), "storageTypes": "all"})
        session.detach()
        for seen in (self.errors, self.requests, self.dialogs):
            seen.clear()

    def go(self) -> None:
        self.page.goto(self.address)
        self.page.evaluate("iberis.started")

    def reload(self) -> None:
        self.page.reload()
        self.page.evaluate("iberis.started")

    def write(self, text: str) -> None:
        self.page.locator("#input").fill(text)

    def send(self, text: str, wait: bool = True) -> None:
        self.write(text)
        self.page.locator("#input").press("Control+Enter")
        if wait:
            self.until("document.getElementById('input').value === ''")
            self.ended()

    def until(self, condition: str, seconds: float = 8) -> None:
        """Waits for a condition of JavaScript. (Playwright's own way evaluates strings: the policy forbids that.)"""
        end = time.monotonic() + seconds
        while not self.page.evaluate(condition):
            assert time.monotonic() < end, f"never came true: {condition}"
            self.page.wait_for_timeout(15)

    def ended(self) -> None:
        """Waits until the last answer is written."""
        self.until("document.querySelector('.assistant.last') && !document.querySelector('.message.running')")

    def button(self, name: str, within: Any = None) -> Any:
        return (within or self.page).get_by_role("button", name=name, exact=True)

    def message(self, index: int) -> Any:
        return self.page.locator(".message").nth(index)

    def body(self, index: int) -> str:
        return str(self.message(index).locator(".body").inner_text())

    def bodies(self) -> list[str]:
        return [str(text) for text in self.page.locator(".message .body").all_inner_texts()]

    def elsewhere(self) -> list[str]:
        """What was asked of any address but the server's own."""
        own = (self.address, "data:", "blob:")
        return [url for url in self.requests if not url.startswith(own)]
