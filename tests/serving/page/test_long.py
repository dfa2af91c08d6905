"""Long conversations: opened quickly, written on quickly, and only what changed is drawn."""

from __future__ import annotations

import threading

from tests.serving.page.stub import answer, piece
from tests.serving.page.visitor import Visitor

# How far it is to the end, in pixels.
LEFT = """(() => {
    const { scrollHeight, clientHeight, scrollTop } = document.getElementById('scroller');
    return scrollHeight - clientHeight - scrollTop;
})()"""
FILL = """count => {
    const { Tree, newConversation } = iberis.tree;
    const tree = new Tree(Object.assign(newConversation(), { title: 'long' }));
    let parent = null;
    for (let i = 0; i < count; i++) {
        const text = `Message ${i}. **bold** \\`code\\`\\n\\n- one\\n- two\\n\\n` +
            'Some words of a sentence. '.repeat(20) + (i % 5 ? '' : '\\n\\n```python\\nprint(1)\\n```');
        parent = tree.add(parent, i % 2 ? 'assistant' : 'user', text, { finish: 'stop' }).id;
    }
    return iberis.store.put(tree.conversation, [...tree.messages.values()]).then(() => tree.conversation.id);
}"""


def opened_long(visitor: Visitor, count: int = 500) -> float:
    """Opens a conversation of `count` messages; -> milliseconds until its end is drawn."""
    identity = visitor.page.evaluate(FILL, count)
    visitor.page.evaluate("id => { location.hash = id; }", identity)
    visitor.reload()
    visitor.until("document.querySelector('.message.last .block')")
    visitor.button("New conversation").click()
    return float(
        visitor.page.evaluate("""async () => {
            const start = performance.now();
            document.querySelector('.conversation .open').click();
            while (!document.querySelector('.message.last .block')) await new Promise(requestAnimationFrame);
            await new Promise(requestAnimationFrame);
            return performance.now() - start;
        }""")
    )


def test_500_messages_open_and_answer_quickly(visitor: Visitor) -> None:
    took = opened_long(visitor)
    assert took < 1500, "about 100 where nothing else runs"
    assert visitor.page.evaluate(LEFT) < 2, "it opens at its end"
    rich = visitor.page.locator(".message .block").count()
    assert 0 < rich < 400, "what is far away is not drawn"
    # Writing on touches nothing above.
    visitor.page.evaluate("""() => {
        window.touched = new Set();
        new MutationObserver((records) => records.forEach(({ target }) => {
            const message = (target.nodeType === 1 ? target : target.parentElement)?.closest('.message');
            if (message) touched.add([...document.querySelectorAll('.message')].indexOf(message));
        })).observe(document.getElementById('thread'), { subtree: true, childList: true, characterData: true });
    }""")
    visitor.stub.answers = [answer(*["word "] * 60, wait=0.002)]
    visitor.send("one more")
    touched = visitor.page.evaluate("[...touched].sort((a, b) => a - b)")
    assert touched
    assert touched[0] >= 499, "the last answer loses its place as the last one; nothing before it changes"


def test_what_is_scrolled_to_is_drawn(visitor: Visitor) -> None:
    opened_long(visitor, 120)
    assert visitor.message(1).locator(".block").count() == 0
    visitor.page.evaluate("document.getElementById('scroller').scrollTop = 0")
    visitor.until("document.querySelectorAll('.message')[1].querySelector('.block')")
    assert visitor.button("To the end").is_visible()
    visitor.button("To the end").click()
    assert not visitor.button("To the end").is_visible()


def test_growing_answer_follows_unless_one_reads_above(visitor: Visitor) -> None:
    visitor.stub.answers = [answer(*["a line\n\n"] * 60), [*[piece("another line\n\n"), 0.01] * 600]]
    visitor.send("one")
    visitor.until(f"{LEFT} < 2")  # with the next frame
    visitor.send("two", wait=False)
    visitor.until("document.querySelector('.running .block:nth-child(12)')")
    visitor.until(f"{LEFT} < 120")
    visitor.page.locator("#scroller").hover()
    visitor.page.mouse.wheel(0, -600)
    visitor.until(f"{LEFT} > 300")
    top = visitor.page.evaluate("document.getElementById('scroller').scrollTop")
    visitor.until("document.querySelector('.running .block:nth-child(40)')")
    assert visitor.page.evaluate("document.getElementById('scroller').scrollTop") == top
    visitor.page.keyboard.press("Escape")
    visitor.ended()


def test_written_blocks_stay_while_an_answer_grows(visitor: Visitor) -> None:
    seen, drawn, items = threading.Event(), threading.Event(), ["- item\n"] * 15
    last = "\n\nLast [link].\n\n[link]: https://a.invalid"  # which is looked for in all that was written before
    visitor.stub.answers = [answer("# Title\n\nFirst.\n\n", *items, seen, *items, drawn, last, wait=0.005)]
    visitor.send("go", wait=False)
    visitor.until("document.querySelector('.assistant li:nth-child(3)')")
    visitor.page.evaluate("() => { window.first = document.querySelector('.assistant .block'); }")
    seen.set()
    visitor.until("document.querySelector('.assistant li:nth-child(20)')")
    assert visitor.page.evaluate("window.first.isConnected")
    drawn.set()
    visitor.ended()
    assert visitor.page.locator(".assistant a").get_attribute("href") == "https://a.invalid"
