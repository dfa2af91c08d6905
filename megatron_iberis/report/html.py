"""The report as one HTML file: the same Markdown, its pictures inside it, nothing that is run or fetched."""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.token import Token

STYLE = Path(__file__).with_name("page.css")


def page(report: str, pictures: Mapping[str, bytes], title: str) -> str:
    """The page of a report with its front matter left out. No HTML of the text is taken as such."""
    markdown = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = markdown.parse(without_front_matter(report))
    _place_pictures(tokens, pictures)
    body = markdown.renderer.render(tokens, markdown.options, {})
    body = body.replace("<table>", '<div class="wide"><table>').replace("</table>", "</table></div>")
    style = STYLE.read_text(encoding="utf-8")
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n<main>\n{body}</main>\n"
        "</body>\n</html>\n"
    )


def without_front_matter(report: str) -> str:
    """The text behind the YAML block that it begins with."""
    found = re.match(r"---\n.*?\n---\n", report, re.DOTALL)
    return report[found.end() :] if found else report


def _place_pictures(tokens: Sequence[Token], pictures: Mapping[str, bytes]) -> None:
    for token in tokens:
        if token.type == "image" and token.attrs.get("src") in pictures:
            content: Any = pictures[str(token.attrs["src"])]
            token.attrs["src"] = f"data:image/png;base64,{base64.b64encode(content).decode()}"
        _place_pictures(token.children or (), pictures)
