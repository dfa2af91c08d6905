"""Where a user writes: several lines, Japanese, pasted text, and what was written before, with prompt_toolkit."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import WordCompleter
from prompt_toolkit.enums import DEFAULT_BUFFER
from prompt_toolkit.filters import has_focus
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent


def line_editor(commands: Sequence[str], colour: bool) -> Callable[[], str]:
    """A function that lets the user write a text and gives it back; Tab completes commands.

    It raises KeyboardInterrupt at Ctrl-C and EOFError at Ctrl-D.
    """
    editor: PromptSession[str] = PromptSession(
        multiline=True,
        key_bindings=_keys(),
        history=_history(),
        completer=WordCompleter(list(commands), sentence=True),
        complete_while_typing=False,
        prompt_continuation="  ",
    )
    return lambda: editor.prompt([("bold" if colour else "", "> ")])


def _keys() -> KeyBindings:
    """Enter sends; Alt-Enter, or Enter after a backslash, begins another line."""
    keys = KeyBindings()
    in_text = has_focus(DEFAULT_BUFFER)

    @keys.add("enter", filter=in_text)
    def _(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        if buffer.document.text_before_cursor.endswith("\\"):
            buffer.delete_before_cursor(1)
            buffer.newline(copy_margin=False)
        else:
            buffer.validate_and_handle()

    @keys.add("escape", "enter", filter=in_text)
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.newline(copy_margin=False)

    return keys


def history_file() -> Path | None:
    """Where what was written is kept; None without a home folder."""
    state = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    return Path(state) / "iberis" / "chat_history" if os.path.isabs(state) else None


class _PrivateHistory(FileHistory):
    """A file that its owner alone can read. A disk that is full or read-only costs the history, not the talk."""

    def store_string(self, string: str) -> None:
        with suppress(OSError):
            Path(os.fsdecode(self.filename)).touch(mode=0o600)
            super().store_string(string)


def _history() -> History:
    path = history_file()
    if path is None:
        return InMemoryHistory()
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.touch(mode=0o600)
        path.read_bytes()
    except OSError:
        return InMemoryHistory()
    return _PrivateHistory(path)
