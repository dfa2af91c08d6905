"""Log-probabilities in the forms of the two APIs, and the names that tokens have there."""

from __future__ import annotations

import codecs
from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import zip_longest
from typing import Any

from megatron_iberis.inference.sampling import Choice
from megatron_iberis.serving.api.answers import Scored
from megatron_iberis.tokenizer import Tokenizer


class TokenNames:
    """A name for each id, no two alike: its text; or its bytes, as bytes:\\xe6; or token_id:7.

    Clients compare names to find whether a token was the likeliest. Of several ids with the same text, the one that
    the tokenizer makes of it has it as its name.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        alike: dict[bytes, list[int]] = defaultdict(list)
        for i in range(tokenizer.vocab_size):
            alike[tokenizer.decode_bytes([i])].append(i)
        self._names = [""] * tokenizer.vocab_size
        for content, ids in alike.items():
            bare = "bytes:" + "".join(f"\\x{byte:02x}" for byte in content)
            try:
                possible = [content.decode(), bare]
                ids = sorted(ids, key=lambda i: tokenizer.encode(possible[0]) != [i]) if len(ids) > 1 else ids
            except UnicodeDecodeError:
                possible = [bare]
            for i, name in zip_longest(ids, possible[: len(ids)]):
                self._names[i] = name or f"token_id:{i}"

    def __getitem__(self, token: int) -> str:
        return self._names[token]

    def bytes(self, token: int) -> list[int]:
        """That the id stands for."""
        return list(self._tokenizer.decode_bytes([token]))

    def offsets(self, ids: Iterable[int]) -> list[int]:
        """Where in the text of the ids each of them begins, in characters."""
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        found, at = [], 0
        for i in ids:
            found.append(at)
            at += len(decoder.decode(self._tokenizer.decode_bytes([i])))
        return found


def chat_logprobs(scored: Sequence[Scored], names: TokenNames) -> dict[str, Any]:
    """As /v1/chat/completions has them."""

    def one(token: int, logprob: float) -> dict[str, Any]:
        return {"token": names[token], "logprob": logprob, "bytes": names.bytes(token)}

    content = [
        {**one(s.choice.id, s.choice.logprob), "top_logprobs": [one(*top) for top in s.choice.top]} for s in scored
    ]
    return {"content": content, "refusal": None}


def completion_logprobs(scored: Sequence[Scored | tuple[int, int]], names: TokenNames) -> dict[str, Any]:
    """As /v1/completions has them. (id, offset): a token that was not scored, as the first of a prompt."""
    tokens, logprobs, tops, offsets = list[str](), list[float | None](), list[dict[str, float] | None](), list[int]()
    for s in scored:
        token, offset = s if isinstance(s, tuple) else (s.choice.id, s.offset)
        choice = None if isinstance(s, tuple) else s.choice
        tokens.append(names[token])
        offsets.append(offset)
        logprobs.append(choice.logprob if choice else None)
        tops.append(_likeliest(choice, names) if choice else None)
    return {"tokens": tokens, "token_logprobs": logprobs, "top_logprobs": tops, "text_offset": offsets}


def _likeliest(choice: Choice, names: TokenNames) -> dict[str, float]:
    """The likeliest tokens, and the one that was chosen."""
    return {names[token]: logprob for token, logprob in [*choice.top, (choice.id, choice.logprob)]}
