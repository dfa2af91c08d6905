"""The document as text: what is vendored is what was published, all carries the nonce, nothing is of another host."""

from __future__ import annotations

import hashlib
import json
import re
from html.parser import HTMLParser
from importlib.resources import files

import pytest

from megatron_iberis.serving.page import EARLY_SCRIPTS, SCRIPTS, VENDORED_SCRIPTS, headers_for, page

NONCE = "c2l4dGVlbiBieXRlcyBpdCBpcw"
FOLDER = files("megatron_iberis.serving.page")
VENDORED = json.loads(FOLDER.joinpath("vendor", "vendored.json").read_text())


class Tags(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


@pytest.mark.parametrize("entry", VENDORED, ids=lambda entry: entry["name"])
def test_vendored_file_is_the_published_one(entry: dict[str, str]) -> None:
    content = FOLDER.joinpath("vendor", entry["file"]).read_bytes()
    assert hashlib.sha256(content).hexdigest() == entry["sha256"]
    assert entry["version"].encode() in content[:2000]
    assert entry["license"]
    assert len(FOLDER.joinpath("vendor", entry["license_file"]).read_text()) > 500


def test_every_vendored_file_is_listed() -> None:
    listed = {entry["file"] for entry in VENDORED} | {entry["license_file"] for entry in VENDORED}
    assert {path.name for path in FOLDER.joinpath("vendor").iterdir()} == listed | {"vendored.json"}
    assert {entry["file"] for entry in VENDORED} == set(VENDORED_SCRIPTS)


def test_sanitiser_is_new_enough() -> None:
    version = next(entry["version"] for entry in VENDORED if entry["name"] == "DOMPurify")
    assert tuple(map(int, version.split("."))) >= (3, 4, 13)


def test_every_script_of_the_folder_is_in_the_page() -> None:
    assert sorted(path.name for path in FOLDER.joinpath("scripts").iterdir()) == sorted(EARLY_SCRIPTS + SCRIPTS)


def test_every_script_and_style_has_the_nonce() -> None:
    tags = [(tag, attributes) for tag, attributes in Tags(page(NONCE)).found if tag in ("script", "style")]
    assert len(tags) == len(EARLY_SCRIPTS + VENDORED_SCRIPTS + SCRIPTS) + 2
    assert all(attributes == {"nonce": NONCE} for _, attributes in tags)


def test_page_asks_for_nothing_elsewhere() -> None:
    for tag, attributes in Tags(page(NONCE)).found:
        assert tag not in ("img", "iframe", "object", "embed", "base", "form", "video", "audio"), tag
        for name, value in attributes.items():
            assert not name.startswith(("on", "style", "src", "action")), (tag, name)
            assert name != "href" or (value or "").startswith("data:"), value
    styles = FOLDER.joinpath("style.css").read_text() + FOLDER.joinpath("content.css").read_text()
    assert not re.search(r"@import|url\(|@font-face", styles)


@pytest.mark.parametrize("name", [*VENDORED_SCRIPTS, *SCRIPTS, *EARLY_SCRIPTS])
def test_no_script_ends_its_tag(name: str) -> None:
    folder = "vendor" if name in VENDORED_SCRIPTS else "scripts"
    text = FOLDER.joinpath(folder, name).read_text()
    # After "<!--" and "<script" a parser of HTML takes the next end tag for text.
    assert not re.search(r"</script|<!--.*<script[\s/>]", text, re.IGNORECASE | re.DOTALL)
    if folder == "scripts":
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|style=", text
        )
        assert len(text.splitlines()) <= 400


def test_no_source_map_is_asked_for() -> None:
    assert "sourceMappingURL" not in page(NONCE)


def test_another_nonce_is_another_document() -> None:
    other = page("b3RoZXItc2l4dGVlbi1ieXRlcw")
    assert NONCE not in other
    assert other.replace("b3RoZXItc2l4dGVlbi1ieXRlcw", NONCE) == page(NONCE)


@pytest.mark.parametrize(
    "nonce", ["", "short", '"><script>alert(1)</script>', "a" * 15, "with space in it 12345", "x" * 16 + "\n"]
)
def test_what_is_no_nonce_is_refused(nonce: str) -> None:
    with pytest.raises(ValueError, match="nonce"):
        page(nonce)
    with pytest.raises(ValueError, match="nonce"):
        headers_for(nonce)


def test_policy_allows_this_server_and_nothing_else() -> None:
    headers = headers_for(NONCE)
    policy = dict(part.split(" ", 1) for part in headers["Content-Security-Policy"].split("; "))
    assert (
        policy["default-src"] == policy["base-uri"] == policy["form-action"] == policy["frame-ancestors"] == "'none'"
    )
    assert policy["script-src"] == policy["style-src"] == f"'nonce-{NONCE}'"
    assert policy["connect-src"] == "'self'"
    assert policy["img-src"] == "data:"
    assert "unsafe" not in headers["Content-Security-Policy"]
    assert "http" not in headers["Content-Security-Policy"]
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["X-DNS-Prefetch-Control"] == "off"
    assert headers["Cache-Control"] == "no-store"


def test_both_languages_say_everything() -> None:
    text = FOLDER.joinpath("scripts", "texts.js").read_text()
    tables = [re.findall(r'^    (\w+): "(.*)",$', part, re.MULTILINE) for part in text.split("const japanese")]
    english, japanese = (dict(table) for table in tables)
    assert len(english) > 80
    assert english.keys() == japanese.keys()
    for key, words in english.items():
        assert set(re.findall(r"\{\w+\}", words)) == set(re.findall(r"\{\w+\}", japanese[key])), key
    used = "".join(FOLDER.joinpath("scripts", name).read_text() for name in SCRIPTS) + page(NONCE)
    assert [key for key in english if not re.search(rf'["?:]\s?"?{key}"', used)] == []
