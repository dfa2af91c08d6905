"""Nothing that a model, a title, a file or a server writes runs, loads, or draws over the page.

Each of three walls is tried without the others: Markdown that shows HTML as text, the sanitiser, the policy.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.serving.page.payloads import EVIL, PAYLOADS
from tests.serving.page.stub import Stub, answer, refusal
from tests.serving.page.visitor import Visitor

TRAP = "window.runs = []; window.ran = (...what) => runs.push(what); 0;"
# What is in the document that was not there before anybody wrote anything, and should never be.
FOUND = """() => {
    const found = [];
    const own = /^(img|script|style|iframe|svg|math|form|input|object|embed|link|meta|base|video|audio|template)$/;
    for (const node of document.querySelectorAll('#thread *, #conversations *, #title *, #notices *, #tested *')) {
        const name = node.nodeName.toLowerCase();
        const icon = node.closest('.icon');
        if (!icon && own.test(name)) found.push(name);
        for (const { name: attribute, value } of node.attributes) {
            const bad = /^(on|src|style$|action|ping|id$|name$|formaction|xlink)/.test(attribute);
            if (bad) found.push(`${name} ${attribute}`);
            if (attribute === 'href' && !/^https?:[/][/]/.test(value)) found.push(`${name} href=${value}`);
            if (name === 'a' && node.rel !== 'noopener noreferrer nofollow') found.push('a without rel');
        }
    }
    return found;
}"""


def harmless(visitor: Visitor) -> None:
    visitor.page.wait_for_timeout(60)
    assert visitor.page.evaluate("window.runs") == []
    assert visitor.page.evaluate(FOUND) == []
    assert visitor.dialogs == []
    assert visitor.elsewhere() == []
    assert visitor.page.url.startswith(visitor.stub.url)
    # The page still works.
    assert visitor.page.evaluate("typeof iberis.api.stream") == "function"


@pytest.fixture
def trapped(visitor: Visitor) -> Visitor:
    visitor.page.evaluate(TRAP)
    return visitor


@pytest.fixture
def without_policy(visitors: Any) -> Visitor:
    """A browser that ignores the Content-Security-Policy: what the page does itself has to be enough."""
    return visitors(bypass_csp=True, prepare=TRAP)


def test_streamed_answers_are_harmless(trapped: Visitor) -> None:
    text = "\n\n".join(PAYLOADS)
    trapped.stub.answers = [answer(*[text[i : i + 23] for i in range(0, len(text), 23)], wait=0.001)]
    trapped.send(PAYLOADS[0] + EVIL)
    harmless(trapped)


SHOW_EVERY_BEGINNING = """payloads => {
    const root = document.createElement('div');
    root.id = 'tested';
    document.getElementById('thread').after(root);
    for (const payload of payloads) {
        const frame = root.appendChild(document.createElement('div'));
        const markdown = new iberis.markdown.Markdown(frame);
        for (let end = 1; end <= payload.length; end += 3) markdown.show(payload.slice(0, end));
        markdown.finish(payload);
    }
}"""


def test_every_beginning_of_every_payload_is_harmless(without_policy: Visitor) -> None:
    without_policy.page.evaluate(SHOW_EVERY_BEGINNING, PAYLOADS)
    harmless(without_policy)
    shown = without_policy.page.locator("#tested").inner_text()
    for words in ("<script>ran()</script>", "over everything"):
        assert words in shown, "HTML is shown as text"
    links = without_policy.page.evaluate("[...document.querySelectorAll('#tested a')].map((a) => a.href)")
    assert links, "links to other hosts stay links"
    for link in without_policy.page.locator("#tested a").all()[:3]:
        link.dispatch_event("mouseover")
    harmless(without_policy)


def test_sanitiser_alone_is_enough(without_policy: Visitor) -> None:
    without_policy.page.evaluate(
        """payloads => {
            const root = document.createElement('div');
            root.id = 'tested';
            document.getElementById('thread').after(root);
            for (const payload of payloads) root.append(iberis.markdown.sanitised(payload));
        }""",
        [*PAYLOADS, *(f"<p>{payload}" for payload in PAYLOADS), *(f"<table><td>{payload}" for payload in PAYLOADS)],
    )
    harmless(without_policy)


@pytest.fixture
def elsewhere() -> Iterator[Stub]:
    """A server of another origin, which answers and counts."""
    stub = Stub()
    yield stub
    stub.close()


def test_policy_alone_is_enough(visitors: Any, elsewhere: Stub) -> None:
    visitor = visitors(prepare=TRAP)
    visitor.page.evaluate(
        """evil => {
            for (const name of ['img', 'iframe', 'video', 'link', 'embed']) {
                const attribute = name === 'link' ? 'href' : 'src';
                const node = document.createElement(name);
                node.rel = 'stylesheet';
                try {
                    node.setAttribute(attribute, evil);
                    document.body.append(node);
                } catch (error) {
                    console.error(error.message);
                }
            }
            document.body.style.background = `url(${evil})`;
            const style = Object.assign(document.createElement('style'), { textContent: 'body { margin: 99px }' });
            document.body.append(style);
        }""",
        elsewhere.url,
    )
    for attempt in [
        "document.body.setAttribute('onclick', 'ran()'), document.body.click()",
        "document.getElementById('thread').innerHTML = '<img src=x onerror=ran()>'",
        "document.body.append(Object.assign(document.createElement('script'), { text: 'ran()' }))",
        "setTimeout('ran()', 0)",
        f"fetch('{elsewhere.url}').catch(() => 0)",
        f"navigator.sendBeacon('{elsewhere.url}')",
    ]:
        visitor.page.evaluate(f"() => {{ try {{ {attempt} }} catch {{}} }}")
    visitor.page.wait_for_timeout(100)
    assert visitor.page.evaluate("window.runs") == []
    assert visitor.page.evaluate("getComputedStyle(document.body).margin") == "0px"
    assert elsewhere.requests == []
    assert all("Content Security Policy" in error or "requires 'Trusted" in error for error in visitor.errors), (
        visitor.errors
    )
    assert len(visitor.errors) >= 8
    visitor.errors.clear()


def test_titles_are_text(trapped: Visitor) -> None:
    title = "<img src=x onerror=ran()><script>ran()</script>"
    trapped.send(title)
    assert trapped.page.locator("#title").inner_text() == title
    assert trapped.page.title().startswith(title)
    assert title in trapped.page.locator(".conversation").inner_text()
    trapped.page.locator(".conversation").hover()
    trapped.button(f"Delete: {title}").click()
    assert trapped.page.locator("#ask-title").inner_text() == f"Delete “{title}”?"
    trapped.button("Cancel").click()
    trapped.page.locator(".conversation").hover()
    trapped.button(f"Rename: {title}").click()
    trapped.page.locator(".conversation input").fill("</button><svg onload=ran()>")
    trapped.page.locator(".conversation input").press("Enter")
    trapped.until("document.getElementById('title').innerText.includes('svg')")
    harmless(trapped)


def test_imported_files_are_harmless(trapped: Visitor) -> None:
    conversations = [
        {
            "id": payload,
            "title": payload,
            "created": payload,
            "updated": 1e99,
            "chosen": [[payload, payload], "x", None],
            "__proto__": {"polluted": payload},
            "messages": [
                {"id": "__proto__", "parent": None, "role": "user", "text": payload, "created": 1, "finish": payload},
                {
                    "id": f"{payload}2",
                    "parent": "__proto__",
                    "role": "assistant",
                    "text": payload,
                    "finish": "error",
                    "error": {"kind": "constructor", "detail": payload},
                    "model": payload,
                    "usage": {"completion": payload, "total": payload},
                },
                {"id": "3", "parent": "missing", "role": "user", "text": payload},
                {"id": "4", "parent": None, "role": "system", "text": payload},
                {"id": "5", "parent": "6", "role": "user", "text": "a circle"},
                {"id": "6", "parent": "5", "role": "assistant", "text": "a circle"},
            ],
        }
        for payload in PAYLOADS
    ]
    file = json.dumps({"format": "iberis-conversations", "version": 1, "conversations": conversations})
    trapped.page.locator("#import-file").set_input_files(
        {"name": "<img src=x onerror=ran()>.json", "mimeType": "application/json", "buffer": file.encode()}
    )
    trapped.until(f"document.querySelectorAll('.conversation').length === {len(PAYLOADS)}")
    for index in range(0, len(PAYLOADS), 9):
        trapped.page.evaluate(f"document.querySelectorAll('.conversation .open')[{index}].click()")
        trapped.until("document.querySelectorAll('.message').length === 2")
        harmless(trapped)
    assert trapped.page.evaluate("({}).polluted") is None


def test_what_the_server_says_is_text(trapped: Visitor) -> None:
    trapped.stub.answers = [refusal(400, "<img src=x onerror=ran()>")]
    trapped.stub.model["id"] = "<svg onload=ran()>"
    trapped.reload()
    trapped.page.evaluate(TRAP)
    trapped.send("go")
    assert "<img src=x onerror=ran()>" in trapped.message(1).locator(".notice").inner_text()
    assert trapped.page.locator("#model-name").inner_text() == "<svg onload=ran()>"
    harmless(trapped)


def test_links_open_elsewhere_and_tell_nothing_of_the_page(trapped: Visitor) -> None:
    trapped.stub.answers = [
        answer("[a page](https://example.invalid/a?b=c) https://bare.invalid <https://angle.invalid>")
    ]
    trapped.send("go")
    links = trapped.page.locator(".assistant a")
    assert links.evaluate_all("links => links.map((a) => [a.target, a.rel, a.title])") == [
        ["_blank", "noopener noreferrer nofollow", url]
        for url in ("https://example.invalid/a?b=c", "https://bare.invalid", "https://angle.invalid")
    ]
    harmless(trapped)


@pytest.mark.parametrize("missing", ["DOMPurify", "marked"])
def test_without_the_sanitiser_texts_stay_text(visitors: Any, missing: str) -> None:
    visitor = visitors(
        bypass_csp=True,
        prepare=TRAP + f"Object.defineProperty(window, '{missing}', {{value: undefined, writable: false}});",
    )
    text = "**bold** " + " ".join(PAYLOADS[:12])
    visitor.stub.answers = [answer(text)]
    visitor.send("go")
    assert visitor.page.locator(".assistant .body").evaluate("body => body.textContent") == text
    assert visitor.page.locator(".assistant .body *:not(p)").count() == 0
    harmless(visitor)
    visitor.errors.clear()  # The library itself may complain that it cannot put its name there.
