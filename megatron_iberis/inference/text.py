"""`TextStream`: the ids of an answer, one by one, to text that can be shown at once and never has to be taken back.

* Half a character is held back until its bytes are complete; bytes that are no UTF-8 become U+FFFD.
* What may be the beginning of a stop string is held back until that is decided. The first stop string to be complete
  ends the text before it, wherever the borders of tokens lie.
* Specials have no text. A call of the calculator and its output are no text for people either: they are held back,
  and given out after all only if the answer ends in the middle of them.

All texts that were given out, joined, are a function of the ids alone: streaming or not makes no difference.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Sequence

from megatron_iberis.errors import InputError
from megatron_iberis.tokenizer import Tokenizer
from megatron_iberis.tokenizer.chat import TOOL_MARKS


class TextStream:
    """See above. `stopped`: a stop string was met; what is pushed after that has no text."""

    def __init__(self, tokenizer: Tokenizer, stop: Sequence[str] = ()) -> None:
        """InputError for an empty stop string."""
        if "" in stop:
            raise InputError("a stop string is empty: leave it out.")
        self.stopped = False
        self._tokenizer = tokenizer
        self._stop = tuple(stop)
        self._specials = {i: name for name, i in tokenizer.specials.items()}
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._held = ""
        self._tool: bytes | None = None  # of the call or the output that we are in

    @property
    def held(self) -> int:
        """Characters that have come and were not given out yet."""
        return len(self._held)

    def push(self, token: int) -> str:
        """The text that can be shown now that this id has come."""
        if self.stopped:
            return ""
        name = self._specials.get(token)
        if name is None:
            content = self._tokenizer.decode_bytes([token])
            if self._tool is None:
                return self._show(self._decoder.decode(content))
            self._tool += content
        elif name in TOOL_MARKS:
            self._tool = b""
            return self._show(self._decoder.decode(b"", final=True))
        elif name in TOOL_MARKS.values():
            self._tool = None
        return ""

    def finish(self) -> str:
        """The answer is over: what was held back."""
        if self.stopped:
            return ""
        shown = self._show(self._decoder.decode(self._tool or b"", final=True))
        shown += self._held
        self._held, self._tool = "", None
        return shown

    def _show(self, text: str) -> str:
        """What of the text held back and this one can be shown."""
        text = self._held + text
        ends = [(at + len(stop), at) for stop in self._stop if (at := text.find(stop)) >= 0]
        if ends:
            self.stopped, self._held = True, ""
            return text[: min(ends)[1]]
        kept = max((_overlap(text, stop) for stop in self._stop), default=0)
        self._held = text[len(text) - kept :]
        return text[: len(text) - kept]


def _overlap(text: str, stop: str) -> int:
    """How much of the end of `text` may be the beginning of `stop`."""
    longest = min(len(text), len(stop) - 1)
    return next((length for length in range(longest, 0, -1) if text.endswith(stop[:length])), 0)


def text_of_ids(tokenizer: Tokenizer, ids: Iterable[int], stop: Sequence[str] = ()) -> str:
    """The text of a whole answer, as a `TextStream` gives it out."""
    stream = TextStream(tokenizer, stop)
    return "".join([*map(stream.push, ids), stream.finish()])
