"""The commands of a conversation in the terminal: /help, /retry, /temperature 0.7, ..."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

from megatron_iberis.config.overrides import suggest
from megatron_iberis.errors import InputError
from megatron_iberis.serving.terminal import settings
from megatron_iberis.serving.terminal.session import Request, Session
from megatron_iberis.tokenizer import chat

_COMMAND = re.compile(r"/([A-Za-z][A-Za-z_-]*)(?:\s+(.*))?\s*", re.DOTALL)

_SETTINGS = tuple(name.replace("_", "-") for name in settings.NAMES)
NAMES = ("help", "reset", "retry", "undo", "system", "save", "load", "stats", *_SETTINGS, "exit")


def is_command(text: str) -> bool:
    """Whether a text is for the program and not for the model: a slash and a word."""
    return _COMMAND.fullmatch(text) is not None


class Commands:
    """Runs commands on a session. note: says something; show: shows the answer to a request."""

    def __init__(self, session: Session, note: Callable[[str], None], show: Callable[[Request], None]) -> None:
        self._session, self._note, self._show = session, note, show

    def run(self, text: str) -> bool:
        """Runs one; False if it was the one that leaves. InputError for one that is unknown, or not possible."""
        found = _COMMAND.fullmatch(text)
        assert found is not None
        name, value = found[1].lower().replace("_", "-"), (found[2] or "").strip()
        if name in ("exit", "quit", "bye"):
            return False
        if name in _SETTINGS:
            self._set(name, value)
        elif name in NAMES:
            getattr(self, f"_{name}")(value)
        else:
            hint = suggest(f"/{name}", [f"/{known}" for known in NAMES])
            raise InputError(f"there is no command /{name}{hint} A space before it makes it a message.")
        return True

    def _set(self, name: str, value: str) -> None:
        if value:
            self._session.settings = self._session.settings.with_value(name, value)
        self._note(f"{name} {self._session.settings.value(name)}")

    def _help(self, value: str) -> None:
        now = "\n".join(
            f"  /{name:<20} {self._session.settings.value(name):<6} {_MEANING[name]}" for name in _SETTINGS
        )
        self._note(f"{_HELP}\nSettings and their values now; /temperature 0.3 sets one:\n{now}")

    def _reset(self, value: str) -> None:
        self._session.reset()
        self._note("the conversation is forgotten")

    def _retry(self, value: str) -> None:
        self._show(self._session.again())

    def _undo(self, value: str) -> None:
        self._session.undo()
        self._note(f"the last question is taken back; messages left: {len(self._session.messages)}")

    def _system(self, value: str) -> None:
        if value:
            self._session.set_system("" if value in ('""', "''", "none") else value)
        self._note(f"system message: {self._session.system or 'none'}")

    def _save(self, value: str) -> None:
        path = _path(value, "/save talk.json")
        self._session.save(path)
        self._note(f"{len(self._session.messages)} messages saved in {path}")

    def _load(self, value: str) -> None:
        path = _path(value, "/load talk.json")
        self._session.load(path)
        for message in self._session.messages:
            mark = "> " if message["role"] == "user" else ""
            self._note(f"{mark}{chat.text_of(message['content'])}")
        self._note(f"{len(self._session.messages)} messages loaded from {path}")
        if self._session.unanswered:
            self._show(self._session.again())

    def _stats(self, value: str) -> None:
        usage = self._session.usage
        if usage is None:
            raise InputError("there is no whole answer yet to count.")
        used = usage.prompt_tokens + usage.completion_tokens
        rows = (
            f"prompt {usage.prompt_tokens:,} tokens, {usage.cached_tokens:,} of them known already",
            f"answer {usage.completion_tokens:,} tokens, the first after {usage.seconds_to_first:.2f} s, then "
            f"{usage.tokens_per_second:.1f} a second",
            f"context {used:,} of {self._session.generator.context:,} tokens",
            f"seed {self._session.seed}",
        )
        self._note("\n".join(rows))


def _path(value: str, example: str) -> Path:
    if not value:
        raise InputError(f"name a file, for example {example}")
    return Path(os.path.expanduser(value))


# At most 80 columns and 24 lines, with the settings.
_HELP = """\
Enter sends; Alt-Enter, or a \\ at the end, begins a new line; up: earlier texts
  /retry               answer the last question anew
  /undo                take the last question and its answer back
  /reset               forget the conversation
  /system TEXT         set the system message ("": none); without TEXT, show it
  /save FILE           write the conversation (JSON, OpenAI's messages)
  /load FILE           go on with a conversation
  /stats               tokens, speed and seed of the last answer
  /exit                leave, as Ctrl-D does"""

_MEANING = {
    "temperature": "0: the likeliest token each time",
    "top-k": "only so many of the likeliest tokens; 0: all",
    "top-p": "only the likeliest tokens that make up this share",
    "min-p": "only tokens this likely beside the likeliest",
    "repetition-penalty": "above 1: against tokens of prompt and answer",
    "presence-penalty": "above 0: against tokens of the answer",
    "frequency-penalty": "the same, as often as they were said",
    "seed": "one seed, one answer; none: another each time",
    "tokens": "of an answer, at most",
    "truncate": "left: the oldest turns go where there is no room",
}
