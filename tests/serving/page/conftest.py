"""A headless Chromium on the page, with a scripted server behind it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from typing import Any

import pytest

from tests.serving.page.stub import Stub
from tests.serving.page.visitor import Visitor

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-extensions",
    "--disable-features=Translate,OptimizationHints",
]


# Closed when this folder's tests are done: Playwright keeps an event loop running in this thread until then.
@pytest.fixture(scope="package")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("there is no Chromium: apt-get install chromium")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="package")
def running_stub() -> Iterator[Stub]:
    stub = Stub()
    yield stub
    stub.close()


@pytest.fixture
def stub(running_stub: Stub) -> Stub:
    running_stub.reset()
    return running_stub


def blameless(visitor: Visitor) -> None:
    assert visitor.errors == [], "the page threw, or its policy stopped something"


@pytest.fixture
def visitors(browser: Any, stub: Stub) -> Iterator[Any]:
    """A function that opens the page in a profile of its own: `visitors(locale="ja-JP", ...)` -> Visitor."""
    opened: list[Visitor] = []

    def visit(**options: Any) -> Visitor:
        opened.append(Visitor(browser, stub, **options))
        return opened[-1]

    yield visit
    for visitor in opened:
        visitor.context.close()
        blameless(visitor)


@pytest.fixture(scope="package")
def lasting_visitor(browser: Any, running_stub: Stub) -> Iterator[Visitor]:
    visitor = Visitor(browser, running_stub, go=False, permissions=["clipboard-read", "clipboard-write"])
    yield visitor
    visitor.context.close()


@pytest.fixture
def newcomer(lasting_visitor: Visitor, stub: Stub) -> Iterator[Visitor]:
    """Somebody at a desk, English, who was never here and has not yet opened the page: `go()`.

    One window for all tests: a new one costs half a second.
    """
    lasting_visitor.forget()
    yield lasting_visitor
    blameless(lasting_visitor)


@pytest.fixture
def visitor(newcomer: Visitor) -> Visitor:
    """Somebody who has opened it."""
    newcomer.go()
    return newcomer
