"""Conversations: branches, edits, several of them, kept over a reload, out to a file and back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.serving.page.stub import answer, piece
from tests.serving.page.visitor import Visitor


def tool(visitor: Visitor, index: int, name: str) -> Any:
    visitor.message(index).hover()
    return visitor.button(name, visitor.message(index))


def settled(visitor: Visitor, *bodies: str) -> None:
    """Waits until the conversation shows these texts, and nothing is being written."""
    wanted = json.dumps(list(bodies))
    visitor.until(
        "!document.querySelector('.running') && JSON.stringify("
        f"[...document.querySelectorAll('.message .body')].map((b) => b.innerText)) === JSON.stringify({wanted})"
    )


def test_regenerating_keeps_the_earlier_answer(visitor: Visitor) -> None:
    visitor.stub.answers = [answer("First."), answer("And so on."), answer("Second.")]
    visitor.send("one")
    visitor.send("two")
    tool(visitor, 1, "Answer anew").click()
    settled(visitor, "one", "Second.")
    assert visitor.stub.bodies[-1]["messages"] == [{"role": "user", "content": "one"}]
    assert "2 / 2" in visitor.message(1).inner_text()
    tool(visitor, 1, "Earlier version").click()
    settled(visitor, "one", "First.", "two", "And so on.")
    visitor.reload()
    settled(visitor, "one", "First.", "two", "And so on.")
    tool(visitor, 1, "Later version").click()
    settled(visitor, "one", "Second.")


def test_editing_a_question_begins_a_branch(visitor: Visitor) -> None:
    visitor.stub.answers = [answer("First."), answer("Other.")]
    visitor.send("one")
    tool(visitor, 0, "Edit the message; the earlier one is kept").click()
    editor = visitor.page.locator(".editor textarea")
    assert editor.input_value() == "one"
    editor.fill("uno")
    editor.press("Enter")
    assert editor.input_value() == "uno\n", "Enter makes a line in an editor"
    editor.fill("uno")
    editor.press("Control+Enter")
    settled(visitor, "uno", "Other.")
    tool(visitor, 0, "Earlier version").click()
    settled(visitor, "one", "First.")


def test_editing_can_be_left(visitor: Visitor) -> None:
    visitor.send("one")
    visitor.page.locator("#input").press("ArrowUp")
    visitor.page.locator(".editor textarea").fill("nothing of this")
    visitor.page.locator(".editor textarea").press("Escape")
    settled(visitor, "one", "Hello there.")
    assert len(visitor.stub.bodies) == 1


def test_edited_answer_is_what_the_model_said(visitor: Visitor) -> None:
    visitor.send("one")
    tool(visitor, 1, "Edit the answer; the earlier one is kept").click()
    visitor.page.locator(".editor textarea").fill("I said **this**.")
    visitor.button("Save").click()
    settled(visitor, "one", "I said this.")
    visitor.send("two")
    assert visitor.stub.bodies[-1]["messages"][1] == {"role": "assistant", "content": "I said **this**."}
    tool(visitor, 1, "Earlier version").click()
    settled(visitor, "one", "Hello there.")


def test_several_conversations_are_kept(visitor: Visitor) -> None:
    for text in ("apples\nand more", "pears", "x" * 200):
        visitor.send(text)
        visitor.button("New conversation").click()
    rows = visitor.page.locator(".conversation .open")
    assert rows.all_inner_texts() == ["x" * 59 + "…", "pears", "apples"]
    visitor.reload()
    assert rows.all_inner_texts() == ["x" * 59 + "…", "pears", "apples"]
    visitor.button("pears").click()
    settled(visitor, "pears", "Hello there.")
    assert visitor.page.title() == "pears · Saint Iberis"
    visitor.reload()
    settled(visitor, "pears", "Hello there.")


def test_conversation_is_renamed_and_removed(visitor: Visitor) -> None:
    visitor.send("apples")
    visitor.button("New conversation").click()
    visitor.send("pears")
    visitor.page.locator(".conversation").nth(1).hover()
    visitor.button("Rename: apples").click()
    field = visitor.page.locator(".conversation input")
    field.fill("りんご")
    field.dispatch_event("keydown", {"key": "Enter", "keyCode": 229})
    assert field.count() == 1, "an Enter that confirms a conversion is no Enter"
    field.press("Enter")
    visitor.until("document.querySelectorAll('.conversation .open')[1]?.innerText === 'りんご'")
    visitor.page.locator(".conversation").nth(1).hover()
    visitor.button("Delete: りんご").click()
    visitor.button("Delete", visitor.page.locator("#ask")).click()
    visitor.until("document.querySelectorAll('.conversation').length === 1")
    settled(visitor, "pears", "Hello there.")
    visitor.reload()
    assert visitor.page.locator(".conversation .open").all_inner_texts() == ["pears"]
    assert visitor.page.evaluate("iberis.store.messages('').then((m) => m.length)") == 0


def test_removing_what_is_being_written_leaves_nothing(visitor: Visitor) -> None:
    visitor.stub.answers = [[piece("a"), *[0.03, piece("b")] * 100]]
    visitor.send("apples", wait=False)
    visitor.until("document.querySelector('.running')")
    visitor.page.locator(".conversation").hover()
    visitor.button("Delete: apples").click()
    visitor.button("Delete", visitor.page.locator("#ask")).click()
    visitor.until("document.querySelectorAll('.conversation').length === 0")
    assert visitor.bodies() == []
    visitor.reload()
    assert visitor.page.locator(".conversation").count() == 0


def test_export_and_import_keep_everything(visitor: Visitor, tmp_path: Path) -> None:
    visitor.stub.answers = [answer("First.", finish="length"), answer("Second."), answer("日本語です。")]
    visitor.send("one")
    tool(visitor, 1, "Answer anew").click()
    settled(visitor, "one", "Second.")
    visitor.button("New conversation").click()
    visitor.send("二")
    visitor.button("Settings").click()
    with visitor.page.expect_download() as download:
        visitor.button("Export all").click()
    path = tmp_path / "export.json"
    download.value.save_as(path)
    assert download.value.suggested_filename.startswith("iberis-conversations-")
    exported = json.loads(path.read_text())
    assert [len(c["messages"]) for c in exported["conversations"]] == [2, 3]
    assert exported["conversations"][0]["messages"][1]["usage"]["completion"] == 1

    visitor.page.locator("#import-file").set_input_files(path)
    result = visitor.page.locator("#data-result")
    visitor.until("document.getElementById('data-result').innerText.includes('imported')")
    assert result.inner_text() == "0 imported, 2 known already."

    visitor.button("Delete all conversations").click()
    visitor.page.locator("#ask-yes").click()
    visitor.until("document.querySelectorAll('.conversation').length === 0")
    visitor.page.locator("#import-file").set_input_files(path)
    visitor.until("document.querySelectorAll('.conversation').length === 2")
    assert result.inner_text() == "2 imported, 0 known already."
    visitor.button("Close").click()
    visitor.button("one").click()
    settled(visitor, "one", "Second.")
    tool(visitor, 1, "Earlier version").click()
    settled(visitor, "one", "First.")
    assert visitor.button("Continue").count() == 1


def test_imported_file_replaces_nothing(visitor: Visitor) -> None:
    visitor.send("one")
    (here,) = visitor.page.evaluate("iberis.store.list()")
    kept = visitor.page.evaluate("id => iberis.store.messages(id)", here["id"])
    message = {"id": kept[0]["id"], "parent": None, "role": "user", "text": "changed", "created": 1}
    file = {**here, "title": "another", "chosen": [], "updated": here["updated"] + 1000, "messages": [message]}
    content = json.dumps({"format": "iberis-conversations", "conversations": [file]})
    visitor.page.locator("#import-file").set_input_files(
        {"name": "a.json", "mimeType": "application/json", "buffer": content.encode()}
    )
    visitor.until("document.querySelectorAll('.conversation').length === 2")
    visitor.button("one").click()
    settled(visitor, "one", "Hello there.")
    visitor.button("another").click()
    settled(visitor, "changed")


def test_what_is_no_export_is_refused(visitor: Visitor) -> None:
    visitor.button("Settings").click()
    for content, reason in [
        ("{", "no JSON"),
        ("[]", "no export"),
        ('{"format": "iberis-conversations"}', "no export"),
        ('{"format": "iberis-conversations", "conversations": [7]}', "no export"),
        ("null", "no export"),
    ]:
        visitor.page.locator("#import-file").set_input_files(
            {"name": "a.json", "mimeType": "application/json", "buffer": content.encode()}
        )
        visitor.until(f"document.getElementById('data-result').innerText.includes('{reason}')")
    assert visitor.page.locator(".conversation").count() == 0


def test_another_tab_shows_what_was_said_here(visitor: Visitor) -> None:
    other = visitor.opened()
    other.goto(visitor.stub.url)
    visitor.send("apples")
    other.get_by_role("button", name="apples", exact=True).click()
    other.locator(".assistant.last").wait_for()
    visitor.send("pears")
    other.locator(".message").nth(3).wait_for()
    assert other.locator(".message .body").all_inner_texts() == ["apples", "Hello there.", "pears", "Hello there."]
    other.close()


def test_without_storage_the_page_works_and_says_so(visitors: Any) -> None:
    visitor = visitors(
        prepare="""
        for (const name of ['localStorage', 'sessionStorage', 'indexedDB'])
            Object.defineProperty(window, name, { get() { throw new DOMException('no', 'SecurityError'); } });
        """
    )
    assert "keeps nothing" in visitor.page.locator("#notices").inner_text()
    visitor.send("one")
    settled(visitor, "one", "Hello there.")
    visitor.button("New conversation").click()
    visitor.button("one").click()
    settled(visitor, "one", "Hello there.")


def test_copies_are_the_text_as_it_was_written(visitor: Visitor) -> None:
    visitor.stub.answers = [answer("**bold**\n\n```python\nprint(1 < 2)\n```\n")]
    visitor.send("go")
    tool(visitor, 1, "Copy").click()
    assert visitor.page.evaluate("navigator.clipboard.readText()") == "**bold**\n\n```python\nprint(1 < 2)\n```\n"
    visitor.button("Copy code").click()
    visitor.until("document.getElementById('announcement').innerText === 'Copied'")
    assert visitor.page.evaluate("navigator.clipboard.readText()") == "print(1 < 2)\n"
    assert visitor.page.locator("pre .hljs-number").all_inner_texts() == ["1", "2"]


def test_plain_http_from_another_machine_is_enough(visitors: Any) -> None:
    # There is no clipboard object there, no randomUUID: the page must not count on them.
    visitor = visitors(
        prepare="""
        Object.defineProperty(navigator, 'clipboard', { value: undefined });
        Object.defineProperty(crypto, 'randomUUID', { value: undefined });
        document.addEventListener('copy', () => { window.copied = getSelection().toString(); });
        """
    )
    visitor.send("one")
    tool(visitor, 1, "Copy").click()
    assert visitor.page.evaluate("window.copied") == "Hello there."
