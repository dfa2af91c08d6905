"""What the manifest of a token file (PREFIX.json) says in the same words, whoever writes it: its counts."""

from __future__ import annotations

from typing import Any


def report(documents: int, tokens: int, text_tokens: int, text_bytes: int) -> dict[str, Any]:
    """Counts as the manifest holds them; `text_tokens`, and so the bytes per token, are without the specials."""
    return {
        "documents": documents,
        "tokens": tokens,
        "text_tokens": text_tokens,
        "text_bytes": text_bytes,
        "bytes_per_token": round(text_bytes / text_tokens, 4) if text_tokens else None,
    }
