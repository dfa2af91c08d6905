"""Documents -> the sentences that a tokenizer is trained on: cut, marked and sampled, in bounded memory.

* Pieces never cross a line's end and never hold more than two digits (nanochat's rule): boundary marks in the
  training text see to it, as SentencePiece itself can only keep all digits apart. Which pairs a longer number falls
  into is up to the merges, so they are not always counted from the left.
* A Japanese piece may hold a word with the particles behind it, but not the end of one phrase and the start of the
  next: a mark stands where hiragana is followed by kanji or katakana (but for the prefixes お and ご). That
  punctuation, Latin letters and Japanese stay apart is SentencePiece's own doing.
"""

from __future__ import annotations

import heapq
import random
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from megatron_iberis.errors import InputError

MARK = "\x1f"  # SentencePiece's own: no piece crosses it
_LEAST_SHARE = 1e-9
_CHUNK = 4_000  # characters; SentencePiece drops or refuses what is much longer than its "sentence"
# Characters that SentencePiece can't take in training (it gives them a meaning of its own) end a piece instead.
_RESERVED = str.maketrans(dict.fromkeys("\0\u2581\u2585", MARK))
_DIGITS = re.compile("[0-9０-９]{1,2}")
_BORDERS = re.compile(r"(?<=\n)(?=[^\n])|(?<=[ぁ-ゖ])(?<![おご])(?=[一-龠々〇ァ-ヺ])")


@dataclass
class Counts:
    """What was read of a source, and what of it is trained on; bytes are those of the text in UTF-8."""

    documents: int = 0
    bytes: int = 0
    bytes_used: int = 0


class Reservoir:
    """An even sample of the chunks that are added, of at most `limit` bytes of text; always the same one."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.size = 0
        self._draw = random.Random(0).random
        self._kept: list[tuple[float, int, bytes]] = []
        self._added = 0

    def add(self, chunk: bytes) -> None:
        self._added += 1
        heapq.heappush(self._kept, (self._draw(), self._added, chunk))
        self.size += text_size(chunk)
        self.shrink(self.limit)

    def shrink(self, limit: int) -> None:
        while self.size > limit:
            self.size -= text_size(heapq.heappop(self._kept)[2])

    def chunks(self) -> list[bytes]:
        """What is left, in the order of adding."""
        return [chunk for _, _, chunk in sorted(self._kept, key=lambda entry: entry[1])]


def sample(
    sources: Mapping[str, Iterable[str]], limit: int, weights: Mapping[str, float] | None
) -> tuple[list[bytes], dict[str, Counts]]:
    """The sentences to train on, at most `limit` bytes of text, and the counts of each source.

    Without weights every source keeps its natural share. With them its share of the bytes is its weight; nothing is
    repeated, so the source that has the least text for its weight decides how much of the others is used.
    InputError if a source has no text.
    """
    counts = {name: Counts() for name in sources}
    samples = {name: Reservoir(limit) for name in sources}
    for name, texts in sources.items():
        for chunk in chunks(texts, counts[name]):
            samples[name].add(chunk)
        if not samples[name].size:
            raise InputError(f"there is no text to train a tokenizer on{_of(name)}: give files with text in them.")
    parts = weights or {name: counts[name].bytes for name in sources}
    shares = {name: parts[name] / sum(parts.values()) for name in sources}
    budget = min([limit, *(samples[name].size / shares[name] for name in weights or ())])
    for name in sources:
        samples[name].shrink(round(budget * shares[name]))
        counts[name].bytes_used = samples[name].size
    return [chunk for name in sources for chunk in samples[name].chunks()], counts


def _of(name: str) -> str:
    return f" in {name!r}" if name else ""


def check_weights(sources: Iterable[str], weights: Mapping[str, float]) -> None:
    """InputError unless each source has a weight above 0, and nothing else has."""
    names = list(sources)
    for name in names:
        if name not in weights:
            raise InputError(f"{name!r} has no weight: give one to every source, or to none.")
    for name, weight in weights.items():
        if name not in names:
            raise InputError(f"there is no source {name!r} to weigh: the sources are {', '.join(names)}.")
        if not 0 < weight < float("inf"):
            raise InputError(f"the weight of {name!r} is {weight}: give a number above 0.")
    total = sum(weights.values())
    for name, weight in weights.items():
        if not weight / total > _LEAST_SHARE:
            raise InputError(f"the weight of {name!r} is {weight} of {total}: that is no share of any text.")


def chunks(texts: Iterable[str], counts: Counts) -> Iterator[bytes]:
    """Cuts documents at line ends (else where it must) into training sentences, with the marks set."""
    for text in texts:
        counts.documents += 1
        start = 0
        while start < len(text):
            end = start + _CHUNK
            if end < len(text):
                line_end = text.rfind("\n", start, end) + 1
                end = line_end if line_end > start else end
            chunk = text[start:end]
            counts.bytes += len(chunk.encode())
            chunk = _DIGITS.sub(rf"{MARK}\g<0>{MARK}", chunk.translate(_RESERVED))
            yield _BORDERS.sub(MARK, chunk).encode()
            start = end


def text_size(chunk: bytes) -> int:
    """Bytes of text in a chunk, without the marks."""
    return len(chunk) - chunk.count(MARK.encode())
