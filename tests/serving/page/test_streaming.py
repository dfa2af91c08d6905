"""Answers as they come: in any pieces, slowly, stopped, cut, gone wrong, continued; and what is told of them."""

from __future__ import annotations

import json
from typing import Any

from tests.serving.page.stub import CUT, answer, event, piece, refusal, usage
from tests.serving.page.visitor import Visitor

JAPANESE = "東京の🗼は高い。ﾊﾝｶｸと👨‍👩‍👧も。"


def parse(visitor: Visitor, chunks: list[bytes]) -> list[str]:
    """What the page's parser makes of these network chunks."""
    script = """chunks => {
        const parser = new iberis.EventParser();
        return [...chunks.flatMap((chunk) => parser.feed(new Uint8Array(chunk))), ...parser.end()];
    }"""
    return list(visitor.page.evaluate(script, [list(chunk) for chunk in chunks]))


def test_events_survive_every_split(visitor: Visitor) -> None:
    for stream, expected in [
        (f"data: {JAPANESE}\n\ndata: b\n\n", [JAPANESE, "b"]),
        ("data: a\r\n\r\ndata:b\r\n\r\n", ["a", "b"]),
        ("data: x\r\ndata: y\r\n\r\n", ["x\ny"]),
        ("data: a\r\rdata: b\r\r", ["a", "b"]),
        (": a comment\n\ndata: x\ndata: y\n\n:\n\n", ["x\ny"]),
        ("event: e\nid: 1\nretry: 5\ndata\ndata:  two\n\n", ["\n two"]),
        ("\ufeffdata: a\n\ndata: no empty line after it", ["a", "no empty line after it"]),
        ("data: [DONE]\n\n", ["[DONE]"]),
    ]:
        content = stream.encode()
        splits = [[content], [content[i : i + 1] for i in range(len(content))]]
        splits += [[content[:i], content[i:]] for i in range(len(content))]
        script = """([splits]) => splits.map((chunks) => {
            const parser = new iberis.EventParser();
            return JSON.stringify([...chunks.flatMap((c) => parser.feed(new Uint8Array(c))), ...parser.end()]);
        })"""
        found = visitor.page.evaluate(script, [[[list(chunk) for chunk in chunks] for chunks in splits]])
        assert {tuple(json.loads(each)) for each in found} == {tuple(expected)}, stream


def test_answer_in_single_bytes_is_whole(visitor: Visitor) -> None:
    whole = b"".join(step for step in answer(*JAPANESE, "\n\nend.") if isinstance(step, bytes))
    visitor.stub.answers = [[whole[i : i + 1] for i in range(len(whole))]]
    visitor.send("go")
    assert visitor.body(1) == f"{JAPANESE}\n\nend."


def test_no_half_character_is_ever_shown(visitor: Visitor) -> None:
    visitor.page.evaluate("""() => {
        window.seen = new Set();
        new MutationObserver(() => seen.add(document.getElementById('thread').textContent))
            .observe(document.getElementById('thread'), {subtree: true, childList: true, characterData: true});
    }""")
    # The server sends half of a surrogate pair, and U+FFFD for bytes that are not there yet.
    halves = [
        b'{"choices":[{"index":0,"delta":{"content":"\\ud83d"}}]}',
        b'{"choices":[{"index":0,"delta":{"content":"\\uddfc"}}]}',
    ]
    visitor.stub.answers = [
        [
            piece("高い"),
            0.1,
            event(halves[0]),
            0.1,
            event(halves[1]),
            0.1,
            piece("塔"),
            piece(finish="stop"),
            event(b"[DONE]"),
        ]
    ]
    visitor.send("go")
    seen = visitor.page.evaluate("[...seen].join('')")
    assert visitor.body(1) == "高い🗼塔"
    assert "\ufffd" not in seen
    assert not visitor.page.evaluate("[...seen].some((text) => !text.isWellFormed())")


def test_request_is_what_was_set(visitor: Visitor) -> None:
    visitor.page.evaluate("""() => {
        iberis.settings.set('temperature', '0.3'); iberis.settings.set('topP', 0.9); iberis.settings.set('topK', 7);
        iberis.settings.set('maxTokens', ''); iberis.settings.set('system', 'Be brief.');
    }""")
    visitor.send("one")
    visitor.send("two")
    body = visitor.stub.bodies[-1]
    assert [(m["role"], m["content"]) for m in body["messages"]] == [
        ("system", "Be brief."),
        ("user", "one"),
        ("assistant", "Hello there."),
        ("user", "two"),
    ]
    assert (body["temperature"], body["top_p"], body["top_k"], body["model"]) == (0.3, 0.9, 7, "stub")
    assert body["stream"] is True
    assert body["stream_options"] == {"include_usage": True}
    assert "max_tokens" not in body
    visitor.page.evaluate("iberis.settings.set('maxTokens', 99)")
    visitor.send("three")
    assert visitor.stub.bodies[-1]["max_tokens"] == 99


def test_nothing_is_asked_beside_what_the_user_asks(visitor: Visitor) -> None:
    visitor.send("one")
    visitor.page.wait_for_timeout(300)
    paths = [url.removeprefix(visitor.stub.url) for url in visitor.requests if not url.startswith("data:")]
    assert paths == ["", "health", "v1/models", "v1/chat/completions"]


def test_figures_are_those_of_usage(visitor: Visitor) -> None:
    visitor.stub.answers = [answer("a", "b", "c", "d", wait=0.05)]
    visitor.send("go")
    figures = visitor.message(1).locator(".figures")
    assert figures.inner_text().endswith("tokens/s")
    assert "≈" not in figures.inner_text()
    assert 3 < float(figures.inner_text().split()[0]) < 50  # 20 where nothing else runs
    assert "4 tokens" in figures.get_attribute("title")
    assert "12 of the prompt's 20" in figures.get_attribute("title")
    assert visitor.page.locator("#context").inner_text() == "Context 24 of 2,048"


def test_stop_keeps_what_is_there_and_lets_the_server_go(visitor: Visitor) -> None:
    visitor.stub.answers = [[piece("It began"), *[0.03, piece(" and")] * 300]]
    visitor.send("go", wait=False)
    visitor.until("document.querySelector('.assistant .body')?.innerText.includes('and and')")
    assert visitor.page.locator("#rate").inner_text().endswith("tokens/s")
    visitor.button("Stop").click()
    visitor.ended()
    text = visitor.body(1)
    assert text.startswith("It began and and")
    assert len(text) < 1000
    assert "Stopped." in visitor.message(1).locator(".notice").inner_text()
    assert "≈" in visitor.message(1).locator(".figures").inner_text()
    for _ in range(100):
        if visitor.stub.left:
            break
        visitor.page.wait_for_timeout(20)
    assert visitor.stub.left == 1
    visitor.reload()
    assert visitor.body(1) == text


def test_cut_answer_is_continued(visitor: Visitor) -> None:
    visitor.stub.answers = [answer("One, ", "two, ", finish="length"), answer("three", ".")]
    visitor.send("Count")
    assert "cut" in visitor.message(1).locator(".notice").inner_text()
    visitor.button("Continue").click()
    visitor.until(
        "!document.querySelector('.running') && document.querySelector('.assistant .body').innerText.includes('.')"
    )
    assert visitor.body(1) == "One, two, three."
    assert visitor.stub.bodies[-1]["messages"][-1] == {"role": "assistant", "content": "One, two, "}
    assert visitor.message(1).locator(".notice").inner_text() == ""
    assert "4 tokens" in visitor.message(1).locator(".figures").get_attribute("title")


def broken(visitor: Visitor, script: Any) -> str:
    """Sends "go" to a server that answers so; -> what the page says of it."""
    visitor.stub.answers = [script]
    visitor.send("go")
    return str(visitor.message(1).locator(".notice").inner_text())


def test_connection_that_breaks_is_told_and_continued(visitor: Visitor) -> None:
    assert "connection was cut" in broken(visitor, [piece("Half a "), 0.1, CUT])
    assert visitor.body(1) == "Half a"
    visitor.stub.answers = [answer("sentence.")]
    visitor.button("Continue").click()
    visitor.until("document.querySelector('.assistant .body').innerText === 'Half a sentence.'")


def test_stream_that_goes_wrong_is_told(visitor: Visitor) -> None:
    error = event({"error": {"message": "the step failed", "type": "server_error"}})
    for script, text, told in [
        ([piece("Half")], "Half", "connection was cut"),
        ([piece("Half"), error, event(b"[DONE]")], "Half", "the step failed"),
        ([event(b"<html>")], "", "does not know"),
        (answer(), "", "nothing"),
    ]:
        assert told in broken(visitor, script)
        assert visitor.body(1) == text
        visitor.button("New conversation").click()


def test_refusal_is_told_and_tried_again(visitor: Visitor) -> None:
    assert "too long for this model" in broken(visitor, refusal(400, "The prompt is too long for this model."))
    visitor.stub.answers = [answer("Now it works.")]
    visitor.button("Try again").click()
    visitor.until("document.querySelector('.assistant .body').innerText === 'Now it works.'")
    assert len(visitor.bodies()) == 2


def test_question_after_a_failed_answer_joins_the_one_before(visitor: Visitor) -> None:
    assert "too much to do" in broken(visitor, refusal(429, "queue is full"))
    visitor.stub.answers = [answer("Yes.")]
    visitor.send("Are you there?")
    assert visitor.stub.bodies[-1]["messages"] == [{"role": "user", "content": "go\n\nAre you there?"}]


def test_answer_goes_on_while_another_conversation_is_shown(visitor: Visitor) -> None:
    visitor.stub.answers = [
        [piece("Slowly"), *[0.03, piece(" on")] * 10, piece(finish="stop"), usage(1, 11), event(b"[DONE]")]
    ]
    visitor.send("first", wait=False)
    visitor.until("document.querySelector('.assistant .body')?.innerText.startsWith('Slowly')")
    visitor.button("New conversation").click()
    assert visitor.page.locator(".conversation.running").count() == 1
    assert visitor.bodies() == []
    visitor.until("!document.querySelector('.conversation.running')")
    visitor.button("first").click()
    visitor.until("document.querySelectorAll('.message').length === 2")
    assert visitor.body(1) == "Slowly" + " on" * 10


def test_reload_in_the_middle_keeps_what_came(visitor: Visitor) -> None:
    visitor.stub.answers = [[piece("Kept "), 0.02, piece("words"), 5.0]]
    visitor.send("go", wait=False)
    visitor.until("document.querySelector('.assistant .body')?.innerText === 'Kept words'")
    visitor.page.wait_for_timeout(400)
    visitor.reload()
    assert visitor.bodies() == ["go", "Kept words"]
    assert "interrupted" in visitor.message(1).locator(".notice").inner_text()
    assert visitor.button("Continue").count() == 1
