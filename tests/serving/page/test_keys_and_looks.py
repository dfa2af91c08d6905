"""Keyboard, phone, conversions of Japanese, languages, themes, and names for those who don't see the pictures."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.serving.page.stub import answer, piece
from tests.serving.page.visitor import PHONE, Visitor


def test_enter_sends_and_shift_enter_makes_a_line(visitor: Visitor) -> None:
    visitor.page.locator("#input").press_sequentially("one")
    visitor.page.keyboard.press("Shift+Enter")
    visitor.page.keyboard.type("two")
    assert visitor.page.locator("#input").input_value() == "one\ntwo"
    visitor.page.keyboard.press("Enter")
    visitor.ended()
    assert visitor.stub.bodies[0]["messages"] == [{"role": "user", "content": "one\ntwo"}]


def test_enter_that_confirms_a_conversion_does_not_send(visitor: Visitor) -> None:
    field = visitor.page.locator("#input")
    field.focus()
    keyboard = visitor.context.new_cdp_session(visitor.page)
    enter = {"key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 229}
    # As Chromium does it: the composition is open while the key goes down.
    keyboard.send("Input.imeSetComposition", {"text": "日本語", "selectionStart": 3, "selectionEnd": 3})
    keyboard.send("Input.dispatchKeyEvent", {"type": "rawKeyDown", **enter})
    keyboard.send("Input.insertText", {"text": "日本語"})
    keyboard.send("Input.dispatchKeyEvent", {"type": "keyUp", **enter, "windowsVirtualKeyCode": 13})
    assert field.input_value() == "日本語"
    # As Firefox says it, and as Safari does, which has ended the composition before the key.
    field.dispatch_event("keydown", {"key": "Enter", "keyCode": 13, "isComposing": True, "bubbles": True})
    field.dispatch_event("keydown", {"key": "Enter", "keyCode": 229, "bubbles": True})
    visitor.page.wait_for_timeout(100)
    assert visitor.stub.bodies == []
    assert field.input_value() == "日本語"
    field.press("Enter")
    visitor.ended()
    assert visitor.stub.bodies[0]["messages"][0]["content"] == "日本語"


def test_escape_that_ends_a_conversion_does_not_stop_an_answer(visitor: Visitor) -> None:
    visitor.stub.answers = [[piece("a"), *[0.02, piece("b")] * 100]]
    visitor.send("go", wait=False)
    visitor.until("document.querySelector('.running')")
    visitor.page.locator("#input").dispatch_event("keydown", {"key": "Escape", "keyCode": 229, "bubbles": True})
    visitor.page.wait_for_timeout(50)
    assert visitor.page.locator(".running").count()
    visitor.page.keyboard.press("Escape")
    visitor.ended()
    assert "Stopped." in visitor.message(1).inner_text()


@pytest.fixture
def phone(visitors: Any) -> Visitor:
    return visitors(locale="ja-JP", **PHONE)


def test_enter_on_a_phone_makes_a_line(phone: Visitor) -> None:
    field = phone.page.locator("#input")
    field.press_sequentially("一")
    field.press("Enter")
    phone.page.keyboard.type("二")
    assert field.input_value() == "一\n二"
    assert phone.stub.bodies == []
    assert field.get_attribute("enterkeyhint") == "enter"
    phone.button("送信").tap()
    phone.ended()
    assert phone.stub.bodies[0]["messages"][0]["content"] == "一\n二"


def test_phone_fits(phone: Visitor) -> None:
    long = "|a|b|c|d|e|f|\n|-|-|-|-|-|-|\n|" + "wide|" * 6 + "\n\n```\n" + "x" * 300 + "\n```\n\n" + "y" * 300
    phone.stub.answers = [answer(long)]
    phone.send("z" * 300)
    width = phone.page.evaluate(
        "[document.documentElement.scrollWidth, document.getElementById('scroller').scrollWidth]"
    )
    assert max(width) <= 390
    send = phone.page.locator("#send").bounding_box()
    assert send["y"] + send["height"] <= 844
    # What is written in is no smaller than 16 pixels: iOS would magnify the page.
    sizes = (
        "[...document.querySelectorAll('input, textarea, select')].map((field) => getComputedStyle(field).fontSize)"
    )
    assert set(phone.page.evaluate(sizes)) == {"16px"}


def test_conversations_lie_over_a_phone_and_go_again(phone: Visitor) -> None:
    phone.send("りんご")
    assert not phone.page.locator("#sidebar").is_visible()
    phone.button("会話の一覧を開く").tap()
    assert phone.page.locator("#sidebar").is_visible()
    assert phone.page.evaluate("document.getElementById('main').inert")
    phone.page.keyboard.press("Escape")
    assert not phone.page.locator("#sidebar").is_visible()
    phone.button("会話の一覧を開く").tap()
    phone.button("りんご").tap()
    phone.until("!document.body.classList.contains('with-sidebar')")
    assert not phone.page.evaluate("document.getElementById('main').inert")


def test_language_is_the_browsers_or_the_chosen_one(visitor: Visitor) -> None:
    visitor.send("hello")
    assert visitor.page.evaluate("document.documentElement.lang") == "en"
    visitor.button("Settings").click()
    visitor.page.locator("[data-setting=language]").select_option("ja")
    assert visitor.page.locator("#settings-title").inner_text() == "設定"
    visitor.page.keyboard.press("Escape")
    assert visitor.button("もう一度生成").count() == 1
    assert visitor.page.locator("#input").get_attribute("placeholder") == "メッセージを入力"
    visitor.reload()
    assert visitor.page.evaluate("document.documentElement.lang") == "ja"
    assert visitor.button("新しい会話").count() == 1


def test_japanese_text_is_set_as_japanese(visitor: Visitor) -> None:
    visitor.stub.answers = [answer("直角と骨。`code`")]
    visitor.send("hello")
    body = visitor.message(1).locator(".body")
    assert body.get_attribute("lang") == "ja"
    assert visitor.message(0).locator(".body").get_attribute("lang") == "en"
    font = body.evaluate("body => getComputedStyle(body).fontFamily")
    assert font.startswith('"Hiragino Sans"')
    assert "Noto Sans CJK JP" in font
    assert "monospace" in body.locator("code").evaluate("code => getComputedStyle(code).fontFamily")


@pytest.fixture
def in_the_dark(visitor: Visitor) -> Iterator[Visitor]:
    visitor.page.emulate_media(color_scheme="dark")
    yield visitor
    visitor.page.emulate_media(color_scheme="light")


def test_theme_is_the_systems_or_the_chosen_one(in_the_dark: Visitor) -> None:
    def background(visitor: Visitor) -> int:
        script = (
            "getComputedStyle(document.documentElement).backgroundColor.match(/[0-9]+/g).reduce((a, b) => a + +b, 0)"
        )
        return int(visitor.page.evaluate(script))

    visitor = in_the_dark
    assert background(visitor) < 120
    visitor.button("Settings").click()
    visitor.page.locator("[data-setting=theme]").select_option("light")
    assert background(visitor) > 700
    visitor.page.keyboard.press("Escape")
    visitor.reload()
    assert background(visitor) > 700


def test_colours_can_be_read(in_the_dark: Visitor) -> None:
    """Contrast of text and of soft text on its ground, as WCAG 2 counts it: 4.5 at least."""
    script = """() => {
        const style = getComputedStyle(document.documentElement);
        const probe = document.body.appendChild(document.createElement('i'));
        const light = (name) => {
            probe.style.color = `var(${name})`;
            const parts = getComputedStyle(probe).color.match(/[0-9.]+/g).slice(0, 3).map((part) => part / 255);
            const [r, g, b] = parts.map((c) => (c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
            return 0.2126 * r + 0.7152 * g + 0.0722 * b;
        };
        const grounds = ['--paper', '--side', '--raised', '--tint', '--hover'];
        const pairs = [...grounds.flatMap((g) => [['--ink', g], ['--soft', g]]), ['--on-accent', '--accent'],
            ['--accent', '--paper'], ['--bad', '--paper'], ['--good', '--paper']];
        return pairs.map(([a, b]) => {
            const [high, low] = [light(a), light(b)].sort((x, y) => y - x);
            return [a, b, (high + 0.05) / (low + 0.05)];
        }).filter(([, , contrast]) => contrast < 4.5);
    }"""
    for scheme in ("dark", "light"):
        in_the_dark.page.emulate_media(color_scheme=scheme)
        assert in_the_dark.page.evaluate(script) == [], scheme


def test_every_control_has_a_name(visitor: Visitor) -> None:
    visitor.send("one")
    visitor.message(1).hover()
    visitor.button("Settings").click()
    nameless = visitor.page.evaluate("""() => [...document.querySelectorAll('button, input, textarea, select')]
        .filter((node) => !(node.getAttribute('aria-label') || node.innerText || node.labels?.[0]?.innerText))
        .filter((node) => node.type !== 'file' && node.id !== 'ask-yes').map((node) => node.outerHTML)""")
    assert nameless == []


def test_settings_hold_what_can_be_used(visitor: Visitor) -> None:
    visitor.button("Settings").click()
    for name, typed, kept in [
        ("temperature", "9", "2"),
        ("temperature", "", "0.8"),
        ("topP", "-1", "0.01"),
        ("topK", "3.6", "4"),
        ("maxTokens", "0", "1"),
        ("maxTokens", "", ""),
    ]:
        field = visitor.page.locator(f"[data-setting={name}]")
        field.fill(typed)
        field.press("Tab")
        assert field.input_value() == kept, name
    visitor.reload()
    visitor.button("Settings").click()
    assert visitor.page.locator("[data-setting=topK]").input_value() == "4"
    visitor.button("Defaults").click()
    assert visitor.page.locator("[data-setting=topK]").input_value() == "50"
    assert visitor.page.locator("[data-setting=maxTokens]").input_value() == "512"


def test_broken_settings_are_the_defaults(visitor: Visitor) -> None:
    for stored in ("{", "null", "7", '{"temperature": {"a": 1}, "theme": "<b>", "system": 7, "topK": "x"}'):
        visitor.page.evaluate(
            "stored => { localStorage.setItem('iberis.settings', stored); iberis.settings.load(); }", stored
        )
        assert visitor.page.evaluate("iberis.settings.sampling()") == {
            "temperature": 0.8,
            "top_p": 1,
            "top_k": 50,
            "max_tokens": 512,
        }
        visitor.reload()
        assert visitor.page.locator("#greeting").inner_text() == "What shall we talk about?"
