"""`iberis chat`: a model to talk to in the terminal, or one answer for a script.

* In a terminal: lines are edited with prompt_toolkit and kept in a history file; answers appear as they are made;
  commands begin with / (slash_commands.py). Ctrl-C ends an answer, not the program; Ctrl-D or /exit leaves.
* With --prompt, or where standard input or output is no terminal: one answer, and nothing but the answer, on standard
  output. Without --prompt the whole of standard input is the prompt.
"""

from __future__ import annotations

import io
import os
import sys
import termios
from collections.abc import Iterator
from contextlib import closing, contextmanager

from megatron_iberis.command import say_error
from megatron_iberis.errors import InputError, sentence
from megatron_iberis.serving.terminal.session import Request, Session
from megatron_iberis.serving.terminal.slash_commands import NAMES, Commands, is_command
from megatron_iberis.serving.terminal.worker import Stopped, Worker

# Control characters would move the cursor, or worse: they are shown as their pictures (ESC as U+241B).
_PICTURES = {code: 0x2400 + code for code in range(32) if chr(code) not in "\n\t\r"} | {0x7F: 0x2421, 0x0D: None}
_PICTURES |= dict.fromkeys(range(0x80, 0xA0), 0xFFFD)


def talk(session: Session, name: str, prompt: str | None = None) -> int:
    """Runs `iberis chat` with an open model, called `name`; returns the exit code.

    prompt: the one question to answer; None: a conversation in a terminal, or what standard input holds.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal may know fewer characters than the model
    if prompt is None and sys.stdin and sys.stdin.isatty() and sys.stdout.isatty():
        return Terminal(session, name).run()
    _answer_once(session, _standard_input() if prompt is None else prompt)
    return 0


def _standard_input() -> str:
    if sys.stdin is None:  # closed by the shell
        raise InputError("there is no standard input: give a prompt with --prompt.")
    try:
        text = sys.stdin.buffer.read().decode("utf-8-sig").rstrip("\r\n")
    except UnicodeDecodeError:
        raise InputError("standard input is not UTF-8: give the prompt as that.") from None
    if not text:
        raise InputError("standard input is empty: give a prompt there, or with --prompt.")
    return text


def _answer_once(session: Session, prompt: str) -> None:
    with closing(session.ask(prompt).pieces(session.generator)) as pieces:
        for piece in pieces:
            sys.stdout.write(visible(piece.text) if sys.stdout.isatty() else piece.text)
            sys.stdout.flush()
    print()


@contextmanager
def _keys_unseen() -> Iterator[None]:
    """What is typed meanwhile does not appear in the answer; it is there at the next prompt."""
    before = termios.tcgetattr(sys.stdin)
    quiet = termios.tcgetattr(sys.stdin)
    quiet[3] &= ~termios.ECHO
    termios.tcsetattr(sys.stdin, termios.TCSADRAIN, quiet)
    try:
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


def visible(text: str) -> str:
    """The text without what would control the terminal."""
    return text.translate(_PICTURES)


class Terminal:
    """The conversation on the screen."""

    def __init__(self, session: Session, name: str) -> None:
        self.session = session
        self._name = name
        self._worker = Worker(session.generator)
        self._commands = Commands(session, self.note, self.show)
        self._colour = "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"

    def note(self, text: str) -> None:
        """Says something that is no answer."""
        text = visible(text)
        print(f"\x1b[2m{text}\x1b[0m" if self._colour else text, flush=True)

    def show(self, request: Request) -> None:
        """Shows an answer while it is made, and keeps it."""
        ids: list[int] = []
        last = None
        with _keys_unseen(), self._worker.answer(request) as pieces:
            try:
                for piece in pieces:
                    ids += piece.ids
                    last = piece
                    sys.stdout.write(visible(piece.text))
                    sys.stdout.flush()
                print(flush=True)
            except Stopped:
                print(flush=True)
                self.note("stopped" if ids else "stopped before the answer began: the conversation is as before")
            finally:
                self.session.keep(ids, last.usage if last else None)
        if last and last.finish == "length":
            self.note(self._cut())

    def _cut(self) -> str:
        usage, context = self.session.usage, self.session.generator.context
        if usage and usage.prompt_tokens + usage.completion_tokens >= context:
            return f"cut: the context of {context:,} tokens is full (/reset, or /truncate left)"
        return f"cut after {self.session.settings.tokens:,} tokens: /tokens sets how many an answer may have"

    def run(self) -> int:
        """Until Ctrl-D or /exit; returns the exit code."""
        from megatron_iberis.serving.terminal.line_editor import line_editor  # a pipe does without prompt_toolkit

        ask = line_editor([f"/{name}" for name in NAMES], self._colour)
        kind = "a chat model" if self.session.is_chat else "a base model: it continues what you write"
        self.note(f"{self._name}: {kind}\n/help lists the commands, Ctrl-C ends an answer, Ctrl-D leaves")
        while True:
            try:
                text = ask()
                if not text.strip():
                    continue
                if not is_command(text):
                    self.show(self.session.ask(text))
                elif not self._commands.run(text):
                    return 0
            except KeyboardInterrupt:
                self.note("Ctrl-D or /exit leaves")
            except EOFError:
                return 0
            except (InputError, OSError) as error:
                said = sentence(error)
                if said is None:
                    raise
                say_error(said)
