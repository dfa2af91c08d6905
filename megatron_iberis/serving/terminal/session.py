"""`Session`: a talk with a model, without a screen: what was said, how to answer, and the prompt that follows.

A chat model answers to the whole conversation. A base model, which has learned none, continues the last text alone.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from megatron_iberis.config.checks import require
from megatron_iberis.errors import InputError
from megatron_iberis.inference.pieces import Generator, Pieces, Usage
from megatron_iberis.inference.sampling import Sampling
from megatron_iberis.serving.terminal.settings import Settings
from megatron_iberis.storage.atomic import write_json
from megatron_iberis.tokenizer import chat


@dataclass(frozen=True)
class Request:
    """An answer to be made."""

    prompt: list[int]
    sampling: Sampling
    tokens: int
    tools: bool

    def pieces(self, generator: Generator) -> Pieces:
        """The answer."""
        return generator.generate(self.prompt, self.sampling, self.tokens, (), self.tools)


class Session:
    """`messages`: user and assistant in turn. `usage` and `seed`: of the last answer. `is_chat`: not a base model."""

    def __init__(self, generator: Generator, is_chat: bool, settings: Settings, system: str = "") -> None:
        """InputError for a system message to a base model."""
        self.generator, self.is_chat, self.settings = generator, is_chat, settings
        self.messages: list[chat.Message] = []
        self.system = ""
        self.usage: Usage | None = None
        self.seed = 0
        self._tries = 0
        self._replaced: chat.Message | None = None  # the answer that is being made anew
        if system:
            self.set_system(system)

    def set_system(self, text: str) -> None:
        """Sets the system message, "" for none. InputError for a base model."""
        self._needs_chat("a system message")
        self.system = text

    def conversation(self) -> list[chat.Message]:
        """All messages, the system message first."""
        return [*([{"role": "system", "content": self.system}] if self.system else []), *self.messages]

    @property
    def unanswered(self) -> bool:
        """Whether the last word is the user's."""
        return bool(self.messages) and self.messages[-1]["role"] == "user"

    # An answer: `ask` or `again`, then `keep` with what came.

    def ask(self, text: str) -> Request:
        """Adds what the user says. InputError if it does not fit; the conversation is then as before."""
        if not self.is_chat:
            self.messages = []
        self.messages.append({"role": "user", "content": text})
        self._tries = 0
        return self._request()

    def again(self) -> Request:
        """Answers the last question anew, with another seed. InputError if there is none."""
        require(bool(self.messages), "there is no question to answer yet.")
        self._replaced = None if self.unanswered else self.messages.pop()
        self._tries += bool(self._replaced)
        return self._request()

    def keep(self, ids: Sequence[int], usage: Usage | None = None) -> None:
        """Adds an answer, whole or broken off. Without any token the conversation is as before the question."""
        if ids:
            content = chat.content_of(self.generator.tokenizer, ids)
            self.messages.append({"role": "assistant", "content": content})
        elif self._replaced:
            self.messages.append(self._replaced)
        else:
            self.messages.pop()
        self._replaced = None
        self.usage = usage

    def _request(self) -> Request:
        try:
            prompt = self._prompt()
        except InputError:
            self.keep([], self.usage)
            raise
        sampling = self.settings.sampling.seeded()
        assert sampling.seed is not None
        if self._tries and self.settings.sampling.seed is not None:
            sampling = replace(sampling, seed=(sampling.seed + self._tries) % 2**63)
        self.seed = sampling.seed or 0
        return Request(prompt, sampling, self.settings.tokens, self.is_chat)

    def _prompt(self) -> list[int]:
        """The ids that the next answer follows."""
        tokenizer, context = self.generator.tokenizer, self.generator.context
        room = context - min(self.settings.tokens, context // 2)
        cut = self.settings.truncate == "left"
        if self.is_chat:
            messages = self.conversation()
            ids = chat.render_for_completion(
                tokenizer, chat.drop_oldest(tokenizer, messages, room) if cut else messages
            )
        else:
            text = tokenizer.encode(self.messages[-1]["content"])
            ids = [tokenizer.bos_id, *(text[-(room - 1) :] if cut else text)]
        if len(ids) >= context:
            parts = "turns" if self.is_chat else "text"
            raise InputError(
                f"the prompt is {len(ids):,} tokens and the model's context, for prompt and answer, {context:,}: "
                f"shorten it{', begin anew (/reset)' if len(self.messages) > 1 else ''}, or have the oldest {parts} "
                "left out (truncate left)."
            )
        return ids

    # The conversation as a whole

    def undo(self) -> None:
        """Takes the last question back, with its answer. InputError if there is none."""
        require(bool(self.messages), "there is nothing to take back.")
        del self.messages[-1 if self.unanswered else -2 :]

    def reset(self) -> None:
        """Forgets the conversation; the system message stays."""
        self.messages = []

    def save(self, path: Path) -> None:
        """Writes the conversation as JSON, whole or not at all.

        InputError for a base model, if there is none yet, or if `path` is a file that holds something else.
        """
        self._needs_chat("a conversation")
        require(bool(self.messages), "there is nothing to save yet.")
        if path.exists():
            self._read(path)
        write_json(path, {"messages": self.conversation()})

    def load(self, path: Path) -> None:
        """Reads what `save` wrote, or a bare list of messages. InputError, and no change, for anything else."""
        self._needs_chat("a conversation")
        messages = self._read(path)
        first = next(number for number, message in enumerate(messages) if message["role"] not in chat.SYSTEM_ROLES)
        self.system = "\n\n".join(chat.text_of(message["content"]) for message in messages[:first])
        self.messages = messages[first:]

    def _read(self, path: Path) -> list[chat.Message]:
        try:
            found: Any = json.loads(path.read_bytes())
        except (ValueError, RecursionError):
            raise InputError(f"{path} is no conversation, which is JSON: name another file.") from None
        messages: Any = found.get("messages") if isinstance(found, dict) else found
        try:
            chat.render(self.generator.tokenizer, messages)
        except InputError as error:
            raise InputError(f"{path} holds no conversation: {error}") from None
        return list(messages)

    def _needs_chat(self, what: str) -> None:
        require(self.is_chat, f"this is a base model, which continues a text: it has no use for {what}.")
