"""Markdown that shows exactly what it is given: names and model output can neither break out nor add markup."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

_HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
"""Categories of characters that reorder a line, or cannot be seen."""
_MARKUP = re.compile(r"([\\`*_\[\]<>|&~$!#{}])")


def visible(text: str) -> str:
    r"""The text with escapes (\x1b, \u202e) for characters that cannot be seen; line ends and tabs stay."""
    plain = text.replace("\r\n", "\n")
    return "".join(
        c if c in "\n\t" or unicodedata.category(c) not in _HIDDEN else c.encode("unicode_escape").decode()
        for c in plain
    )


def inline(text: object) -> str:
    """In a sentence or a cell of a table, on one line."""
    return _MARKUP.sub(r"\\\1", " ".join(visible(str(text)).split()))


def code(text: object) -> str:
    """A code span: a path, a setting. In a table too, where a bar would end the cell."""
    shown = " ".join(visible(str(text)).split()).replace("|", "\\|") or " "
    fence = "`" * (1 + max(map(len, re.findall("`+", shown)), default=0))
    space = " " if "`" in shown else ""
    return f"{fence}{space}{shown}{space}{fence}"


def block(text: str, language: str = "text") -> str:
    """A block of lines as they are: its fence is longer than any in the text."""
    shown = visible(text)
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", shown)), default=0))
    return f"{fence}{language}\n{shown}\n{fence}"


def table(head: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> str:
    """A table whose first `left` columns are aligned to the left. Cells are Markdown already; none: an empty text."""
    rows = [[cell or " " for cell in row] for row in rows]
    if not rows:
        return ""
    marks = [":---" if column < left else "---:" for column in range(len(head))]
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, marks, *rows))


def front_matter(values: Mapping[str, Any]) -> str:
    """The YAML block that a model card begins with."""
    import yaml

    return f"---\n{yaml.safe_dump(dict(values), sort_keys=False, allow_unicode=True, width=1000)}---\n"
