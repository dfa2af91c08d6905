"""Conversations as the model sees them: messages -> ids, and a mask of those that it is to say itself.

    <|bos|> <|user_start|> text <|user_end|> <|assistant_start|> text <|assistant_end|> <|user_start|> ...

* Messages have OpenAI's form: {"role": "user", "content": "..."}, or a list of parts as the content. Parts are
  {"type": "text", "text": "..."}, and in an assistant's message also "python", a call of the calculator, and
  "python_output", what it gave: <|python_start|> text <|python_end|> and <|output_start|> text <|output_end|>.
* User and assistant take turns, a user begins. System (or developer) messages come first; they are put before the
  first user message, a blank line between.
* The mask is 1 for what the assistant says, its calls and <|assistant_end|> included, and 0 for the rest: what users
  say, what the calculator gave, and the marks that the program places.
* Content is encoded as ordinary text, each part by itself: nothing that is written in it makes a special id.

These are nanochat's rules. Any wrong message is an InputError that names it by its number. No torch here.
"""

from __future__ import annotations

import codecs
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, Final

from megatron_iberis.errors import InputError
from megatron_iberis.tokenizer.tokenizer import SPECIALS, Tokenizer

Message = Mapping[str, Any]

SYSTEM_ROLES = ("system", "developer")
ASSISTANT_END = "<|assistant_end|>"
# Kind of part -> the specials around it, and whether the assistant says it.
_MARKS = {
    "python": ("<|python_start|>", "<|python_end|>", 1),
    "python_output": ("<|output_start|>", "<|output_end|>", 0),
}
TOOL_MARKS = {start: end for start, end, _ in _MARKS.values()}
"""The specials that open a part of the calculator's, with those that close it."""


@dataclass(frozen=True)
class _Turn:
    """A user's or an assistant's message, read."""

    number: int
    role: str
    parts: list[tuple[str, str]]
    """(kind, text) each."""


@dataclass
class _Rendering:
    """Ids and mask as they grow."""

    tokenizer: Tokenizer
    ids: list[int] = field(default_factory=list)
    mask: list[int] = field(default_factory=list)

    def special(self, name: str, said: int) -> None:
        self.ids.append(self.tokenizer.specials[name])
        self.mask.append(said)

    def text(self, text: str, said: int) -> None:
        ids = self.tokenizer.encode(text)
        self.ids += ids
        self.mask += [said] * len(ids)

    def turn(self, turn: _Turn, ended: bool = True) -> None:
        """ended: with the mark that ends the message."""
        said = int(turn.role == "assistant")
        self.special(f"<|{turn.role}_start|>", 0)
        try:
            for kind, text in turn.parts:
                start, end, told = _MARKS.get(kind, ("", "", said))
                if start:
                    self.special(start, told)
                self.text(text, told)
                if end:
                    self.special(end, told)
        except InputError as error:  # a lone surrogate
            raise InputError(f"message {turn.number} ({turn.role}): {error}") from None
        if ended:
            self.special(f"<|{turn.role}_end|>", said)


def check_messages(messages: Sequence[Message]) -> None:
    """InputError that names the message that is wrong, as `render` would."""
    _read(messages)


def render(
    tokenizer: Tokenizer, messages: Sequence[Message], limit: int | None = None
) -> tuple[list[int], list[int]]:
    """Ids and mask (1: said by the assistant) of a conversation, the first `limit` of them.

    InputError that names the message that is wrong, or if the tokenizer has no specials for conversations.
    """
    rendering = _rendered(tokenizer, _with_system(*_read(messages)))
    return rendering.ids[:limit], rendering.mask[:limit]


def render_for_completion(tokenizer: Tokenizer, messages: Sequence[Message], answer_anew: bool = False) -> list[int]:
    """Ids that the assistant's next words follow.

    If the last message is an assistant's, the answer goes on with its content; with `answer_anew` it is left out, and
    the answer is a new one to the user's message before it. InputError as in `render`.
    """
    turns = _with_system(*_read(messages))
    if answer_anew and turns[-1].role == "assistant":
        turns.pop()
    return _to_complete(tokenizer, turns)


def drop_oldest(tokenizer: Tokenizer, messages: Sequence[Message], room: int) -> list[Message]:
    """The conversation without its oldest turns: as few left out as make `render_for_completion` at most `room` ids.

    System messages stay; a user's message goes together with its answer. InputError, besides those of `render`, if
    the last turn alone is longer.
    """
    system, turns = _read(messages)
    leading = len(messages) - len(turns)
    lengths = [len(_rendered(tokenizer, [turn]).ids) - 2 for turn in turns]  # what it adds, at the least
    count = 0
    for first in range(0, len(turns), 2):
        last = first + 2 >= len(turns)
        if last or sum(lengths[first:]) <= room:  # what is too long by far need not be rendered to see that
            count = len(_to_complete(tokenizer, _with_system(system, turns[first:])))
            if count <= room:
                return [*messages[:leading], *messages[leading + first :]]
    raise InputError(
        f"the last question{' with the system message' if leading else ''} is {count:,} tokens long and there is "
        f"room for {room:,}: shorten it."
    )


def content_of(tokenizer: Tokenizer, ids: Iterable[int]) -> str | list[dict[str, str]]:
    """The content of an assistant's message from the ids of its answer: a text, or parts if it used the calculator.

    What is no UTF-8 becomes U+FFFD, but half a character at the very end, of an answer that was broken off, is left
    out. A call or output that was not closed is text. Other specials are left out.
    """
    specials = {i: name for name, i in tokenizer.specials.items()}
    kinds = {start: kind for kind, (start, _, _) in _MARKS.items()}
    parts: list[tuple[str, list[int]]] = [("text", [])]
    for i in ids:
        name = specials.get(i)
        if name is None:
            parts[-1][1].append(i)
        elif name in kinds:
            parts.append((kinds[name], []))
        elif name in TOOL_MARKS.values() and parts[-1][0] != "text":
            parts.append(("text", []))
    parts[-1] = ("text", parts[-1][1])
    whole = [(kind, tokenizer.decode(of)) for kind, of in parts[:-1]]
    whole.append(
        ("text", codecs.getincrementaldecoder("utf-8")("replace").decode(tokenizer.decode_bytes(parts[-1][1])))
    )
    told = [{"type": kind, "text": text} for kind, text in whole if text or kind != "text"]
    return told if any(part["type"] != "text" for part in told) else "".join(part["text"] for part in told)


@cache
def template_hash() -> str:
    """What the template does, in 12 hex digits: another for any other rendering, the same with every tokenizer.

    A model speaks in the one that it has learned.
    """
    letters = _Letters()
    return hashlib.sha256(json.dumps([render(letters, sample) for sample in _SAMPLES]).encode()).hexdigest()[:12]  # type: ignore[arg-type]


class _Letters:
    """As much of a tokenizer as rendering needs; a text's ids are its characters'."""

    specials: Final = {name: -number for number, name in enumerate(SPECIALS, 1)}

    def encode(self, text: str) -> list[int]:
        return [ord(letter) for letter in text]


_CALL = [
    {"type": "text", "text": "It is "},
    {"type": "python", "text": "2*3"},
    {"type": "python_output", "text": "6"},
    {"type": "text", "text": "."},
]
_SAMPLES: Sequence[Sequence[Message]] = (
    [{"role": "user", "content": " a\n"}, {"role": "assistant", "content": "b "}, {"role": "user", "content": "c"}],
    [{"role": "system", "content": "s"}, {"role": "user", "content": "a"}, {"role": "assistant", "content": _CALL}],
    [{"role": "system", "content": "s"}, {"role": "developer", "content": "t"}, {"role": "user", "content": ""}],
    [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "<|bos|>"}]}],
)
"""Between them they show all that the rules at the top say."""


def text_of(content: Any) -> str:
    """What of a message's content is for people to read: its text, without the calculator's parts."""
    if isinstance(content, str):
        return content
    return "".join(part["text"] for part in content if part["type"] == "text")


# Rendering


def _rendered(tokenizer: Tokenizer, turns: Iterable[_Turn]) -> _Rendering:
    specials = {tokenizer.specials.get(name) for name in SPECIALS}
    if None in specials or len(specials) < len(SPECIALS):
        raise InputError(
            f"the tokenizer lacks some of the specials that conversations need ({', '.join(SPECIALS)}): use one of "
            "data_tools/train_tokenizer.py or import_tokenizer.py."
        )
    rendering = _Rendering(tokenizer)
    rendering.special(SPECIALS[0], 0)
    for turn in turns:
        rendering.turn(turn)
    return rendering


def _to_complete(tokenizer: Tokenizer, turns: Sequence[_Turn]) -> list[int]:
    if turns[-1].role == "user":
        rendering = _rendered(tokenizer, turns)
        rendering.special("<|assistant_start|>", 0)
    else:
        rendering = _rendered(tokenizer, turns[:-1])
        rendering.turn(turns[-1], ended=False)
    return rendering.ids


def _with_system(system: str, turns: Sequence[_Turn]) -> list[_Turn]:
    """The turns as they are rendered: the system message is part of the first one's text."""
    if not system:
        return list(turns)
    first = turns[0]
    return [replace(first, parts=[("text", f"{system}\n\n{first.parts[0][1]}")]), *turns[1:]]


# Reading


def _read(messages: Sequence[Message]) -> tuple[str, list[_Turn]]:
    """The text of the system messages and the turns that follow them; a user's turn has one part."""
    _require(isinstance(messages, Sequence) and not isinstance(messages, str), "messages must be a list.")
    system: list[str] = []
    turns: list[_Turn] = []
    for number, message in enumerate(messages, 1):
        role = message.get("role") if isinstance(message, Mapping) else None
        if role not in (*SYSTEM_ROLES, "user", "assistant"):
            raise InputError(f"message {number} has the role {role!r}: use system, developer, user or assistant.")
        parts = _parts(f"message {number} ({role})", role, message.get("content"))
        if role in SYSTEM_ROLES:
            _require(not turns, f"message {number} ({role}) comes after other messages: put it first.")
            system.append(_joined(parts))
        else:
            wanted = "assistant" if len(turns) % 2 else "user"
            before = f"follows another {role} message" if turns else "begins the conversation"
            _require(
                role == wanted, f"message {number} ({role}) {before}: user and assistant take turns, a user begins."
            )
            turns.append(_Turn(number, role, parts if role == "assistant" else [("text", _joined(parts))]))
    _require(bool(turns), "there is no user message: a conversation begins with one.")
    return "\n\n".join(text for text in system if text), turns


def _parts(name: str, role: str, content: Any) -> list[tuple[str, str]]:
    if isinstance(content, str):
        return [("text", content)]
    _require(isinstance(content, list | tuple), f"{name} has no content: it must be a text or a list of parts.")
    kinds = ("text", *_MARKS) if role == "assistant" else ("text",)
    parts: list[tuple[str, str]] = []
    for part in content:
        kind, text = (part.get("type"), part.get("text")) if isinstance(part, Mapping) else (None, None)
        _require(kind in kinds, f"{name} has a part of type {kind!r}: it can be {' or '.join(kinds)}.")
        _require(isinstance(text, str), f'{name} has a part of type {kind!r} without its "text".')
        parts.append((str(kind), str(text)))
    return parts


def _joined(parts: Iterable[tuple[str, str]]) -> str:
    return "".join(text for _, text in parts)


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise InputError(message)
