"""Python's own help topics, which every installation has, as plain documents of a few kB."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

_RULE = re.compile(r"^\s*([*=\-~^+#\"])\1{2,}\s*$")
_FOOTNOTE = re.compile(r"(?<=[\w.,;:)\"]) \[\d+\](?=[\s.,;:)]|$)")
_BULLET = re.compile(r"^(?:\* |\d+\. |\(\d+\) )")
_CODE = re.compile(r">>>|\.\.\. |[\w.]+\([^()]*\)$|(class|classmethod|def) \w|@\w|.*::=|#")
"""How a line starts that is not prose."""
_WRAPPED = 48
"""Indented lines that are all this long are wrapped prose, not code."""
DOCUMENT_BYTES = 3000
"""A document is closed once it is this long."""
_MINIMUM_BYTES = 300
_GRAMMAR_LINES = 12
"""A grammar longer than this is left out."""


def documents(topics: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Pairs of a topic's name and a document cut from it; no long paragraph comes twice.

    Some topics repeat others, so that the short ones go first and keep what they say.
    """
    seen: set[str] = set()
    for name in sorted(topics, key=lambda name: (len(topics[name]), name)):
        kept: list[str] = []
        for paragraph in paragraphs(topics[name]):
            key = " ".join(paragraph.split())
            if len(key) > 40:
                if key in seen:
                    continue
                seen.add(key)
            kept.append(paragraph)
        yield from ((name, document) for document in _pack(kept))


def paragraphs(text: str) -> Iterator[str]:
    """The paragraphs of one topic without rules, tables, footnotes and long grammars, unwrapped."""
    text = text.split("-[ Footnotes ]-")[0]
    for block in re.split(r"\n\s*\n", text.expandtabs()):
        lines = [line.rstrip() for line in block.splitlines() if not _RULE.match(line)]
        lines = [line for line in lines if line.strip()]
        if not lines or _is_table(lines):
            continue
        if any("::=" in line for line in lines) and len(lines) > _GRAMMAR_LINES:
            continue
        yield _unwrap(lines)


def _is_table(lines: list[str]) -> bool:
    return any(line.lstrip().startswith(("+-", "+=", "|")) for line in lines)


def _unwrap(lines: list[str]) -> str:
    """Joins the lines of a paragraph or of a list's entries; leaves code and signatures as they stand."""
    indent = min(len(line) - len(line.lstrip()) for line in lines)
    flush = all(line[indent] != " " for line in lines)
    if any(_CODE.match(line.strip()) for line in lines):
        return "\n".join(lines)
    if _BULLET.match(lines[0]):
        result: list[str] = []
        for line in lines:
            if _BULLET.match(line) or not result:
                result.append(line)
            else:
                result[-1] += " " + line.strip()
        return _FOOTNOTE.sub("", "\n".join(result))
    if flush and (indent == 0 or all(len(line.strip()) >= _WRAPPED for line in lines[:-1])):
        return _FOOTNOTE.sub("", " " * indent + " ".join(line.strip() for line in lines))
    return "\n".join(lines)


def _pack(blocks: list[str]) -> Iterator[str]:
    """Documents of whole paragraphs, of about `DOCUMENT_BYTES` each."""
    current: list[str] = []
    size = 0
    for block in blocks:
        current.append(block)
        size += len(block.encode()) + 2
        if size >= DOCUMENT_BYTES:
            yield "\n\n".join(current)
            current, size = [], 0
    if size >= _MINIMUM_BYTES:
        yield "\n\n".join(current)
