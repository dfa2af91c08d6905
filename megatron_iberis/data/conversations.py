"""Conversations of a mixture -> a token file with the mask of what the assistant says, and how many there were.

* Each conversation is a document (tokenizer/chat.py). One that is longer than a row is cut at the end of an answer,
  so that one whole answer stays at least; it is left out where none fits, or where nothing in it is to be learned.
* All sources are shuffled together, once; `conversation_rows.py` gives each epoch an order of its own.
* It is done once: what comes of it is kept in a folder named by a hash of all that went in, rows included, and may be
  deleted at any time. Of several processes of a node one does it and the others wait.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from megatron_iberis import _C
from megatron_iberis.data.order.stored_index import cache_folder
from megatron_iberis.data.token_files.reader import TokenFile, token_dtype
from megatron_iberis.data.token_files.writer import index_writer
from megatron_iberis.errors import InputError
from megatron_iberis.storage.atomic import new_folder, write_json
from megatron_iberis.storage.hashing import hash_file
from megatron_iberis.storage.locks import lock
from megatron_iberis.tokenizer import Tokenizer
from megatron_iberis.tokenizer.chat import ASSISTANT_END, Message, render, template_hash

_FORMAT = 1
_NAME = "conversations"
_MANY = 30_000
"""More conversations than this take longer than a few seconds."""


class Conversation(Protocol):
    """A row of a task. where: the file and line, say, that an error names."""

    @property
    def messages(self) -> Sequence[Message]: ...
    @property
    def where(self) -> str: ...


class Conversations(Protocol):
    """The rows of a task."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Conversation: ...


@dataclass(frozen=True)
class Source:
    """A part of a mixture: these rows of the task, so many times an epoch."""

    name: str
    task: Conversations
    rows: range
    epochs: int = 1

    def __len__(self) -> int:
        return len(self.rows) * self.epochs

    def __getitem__(self, index: int) -> Conversation:
        return self.task[self.rows[index % len(self.rows)]]


@dataclass
class Counts:
    """What became of a source's rows, each counted as often as it comes in an epoch."""

    read: int = 0
    dropped: int = 0
    """Longer than a row, without a whole answer that fits."""
    cut: int = 0
    """Longer than a row, and cut after the last answer that fits."""
    without_target: int = 0
    """Left out, since there is nothing in them to learn."""
    tokens: int = 0
    targets: int = 0


@dataclass(frozen=True)
class Rendering:
    """How conversations are rendered. row_tokens: the most that one may have (T + 1); 0: any number."""

    row_tokens: int
    loss_on: Literal["assistant", "all"]
    seed: int


@dataclass(frozen=True)
class RenderedConversations:
    """The conversations as documents of a token file. said: 1 where the assistant says a token, uint8 [tokens]."""

    file: TokenFile
    said: npt.NDArray[np.uint8]
    counts: Mapping[str, Counts]


def render_mixture(
    setting: str,
    sources: Sequence[Source],
    tokenizer: Tokenizer,
    how: Rendering,
    cache: str = "",
    tell: Callable[[str], None] = lambda text: None,
) -> RenderedConversations:
    """All conversations of an epoch. setting: what errors are about, "tasks.mixture". tell: is told what takes long.

    Raises InputError for a row that is no conversation, when nothing is left to train on, and when the folder `cache`
    (empty: the user's) cannot be written to.
    """
    root = Path(cache) if cache else cache_folder() / _NAME
    folder = root / _key(sources, tokenizer, how)
    try:
        root.mkdir(parents=True, exist_ok=True)
        with contextlib.closing(lock(root, wait=True)):
            if not folder.exists():
                if (total := sum(map(len, sources))) > _MANY:
                    tell(f"{total:,} conversations of {setting} become tokens, once; they are kept in {folder}")
                with contextlib.suppress(FileExistsError), new_folder(folder) as new:  # or another's, the same
                    _write(setting, new, sources, tokenizer, how)
    except OSError as error:
        raise InputError(
            f"the conversations of {setting} cannot be kept in {root} ({error.strerror}): free space, or give "
            "another --tasks.cache."
        ) from None
    return _opened(setting, folder)


def _opened(setting: str, folder: Path) -> RenderedConversations:
    try:
        file = TokenFile(folder / _NAME, name=setting)
        counts = {name: Counts(**each) for name, each in (file.manifest or {})["sources"].items()}
        said = np.memmap(folder / f"{_NAME}.said", np.uint8, "r")
    except (InputError, OSError, ValueError, KeyError, TypeError, AttributeError):
        raise InputError(f"{folder} is damaged: delete this folder, it will be made anew.") from None
    if len(said) != file.num_tokens:
        raise InputError(f"{folder} is damaged: delete this folder, it will be made anew.")
    return RenderedConversations(file, said, counts)


def conversation_ids(
    tokenizer: Tokenizer, row: Conversation, how: Rendering, counts: Counts
) -> tuple[list[int], list[int]] | None:
    """Ids and mask of a conversation as it is trained on, or None where it is left out; it is counted either way."""
    counts.read += 1
    try:
        ids, said = render(tokenizer, row.messages)
    except InputError as error:
        raise InputError(f"{row.where}: {error}") from None
    if how.loss_on == "assistant" and not any(said):
        counts.without_target += 1
        return None
    if 0 < how.row_tokens < len(ids):
        end = _end_of_last_answer(ids, tokenizer.specials[ASSISTANT_END], how.row_tokens)
        if end == 0:
            counts.dropped += 1
            return None
        counts.cut += 1
        ids, said = ids[:end], said[:end]
    counts.tokens += len(ids)
    counts.targets += sum(said) if how.loss_on == "assistant" else len(ids) - (how.row_tokens > 0)
    return ids, said


def _end_of_last_answer(ids: Sequence[int], assistant_end: int, room: int) -> int:
    """Behind the last answer that ends in the first `room` ids; 0 if none does. No text makes that id."""
    return next((place + 1 for place in reversed(range(room)) if ids[place] == assistant_end), 0)


def _key(sources: Sequence[Source], tokenizer: Tokenizer, how: Rendering) -> str:
    """A hash of all that decides the files."""
    digest = hashlib.blake2b(digest_size=12)
    head = [_FORMAT, tokenizer.fingerprint, template_hash(), asdict(how), [(s.name, s.epochs) for s in sources]]
    digest.update(json.dumps(head).encode())
    for source in sources:
        for index in source.rows:
            messages = json.dumps(source.task[index].messages, default=dict)
            digest.update(messages.encode() + b"\n")
        digest.update(b"\n")
    return digest.hexdigest()


def _write(setting: str, folder: Path, sources: Sequence[Source], tokenizer: Tokenizer, how: Rendering) -> None:
    """Writes token file, mask and counts into an empty folder."""
    counts = {source.name: Counts() for source in sources}
    dtype, prefix = token_dtype(tokenizer.vocab_size), folder / _NAME
    with (
        index_writer(prefix.with_suffix(".idx"), dtype) as index,
        prefix.with_suffix(".bin").open("wb") as tokens,
        prefix.with_suffix(".said").open("wb") as mask,
    ):
        for name, row in _shuffled(sources, how.seed):
            found = conversation_ids(tokenizer, row, how, counts[name])
            if found:
                ids, said = (np.array(each) for each in found)
                tokens.write(ids.astype(dtype).tobytes())
                mask.write(said.astype(np.uint8).tobytes())
                index.add_document(np.array([len(ids)], np.int64))
        _refuse_nothing(setting, counts, how)
    manifest = {
        "tokenizer": tokenizer.fingerprint,
        "template": template_hash(),
        "sources": {name: asdict(each) for name, each in counts.items()},
        "sha256": {"bin": hash_file(prefix.with_suffix(".bin"), hashlib.sha256())},
    }
    write_json(prefix.with_suffix(".json"), manifest)


def _shuffled(sources: Sequence[Source], seed: int) -> Iterator[tuple[str, Conversation]]:
    """Every row of all sources, with its source's name, in an order that depends on the seed and their number."""
    ends = np.cumsum([len(source) for source in sources])
    total = int(ends[-1])
    for number in _C.permute_range(0, total, total, seed).tolist() if total else ():
        which = int(np.searchsorted(ends, number, side="right"))
        source = sources[which]
        yield source.name, source[number - int(ends[which]) + len(source)]


def total_of(counts: Mapping[str, Counts]) -> Counts:
    """The sum of all sources."""
    return Counts(**{f.name: sum(getattr(each, f.name) for each in counts.values()) for f in fields(Counts)})


def _refuse_nothing(setting: str, counts: Mapping[str, Counts], how: Rendering) -> None:
    total = total_of(counts)
    if total.targets:
        return
    if not total.read:
        raise InputError(f"{setting} holds no conversations: give sources that have rows.")
    reasons = []
    if total.dropped:
        reasons.append(
            f"{total.dropped:,} are longer than a row of {how.row_tokens - 1:,} tokens and have no whole answer that "
            "fits (raise model.sequence_length)"
        )
    if total.without_target:
        reasons.append(f"{total.without_target:,} have no message of the assistant's")
    raise InputError(
        f"none of the {total.read:,} conversations of {setting} can be trained on: {'; '.join(reasons)}."
    )


def with_total(counts: Mapping[str, Counts]) -> dict[str, Counts]:
    """The counts by source, a file by its name alone if no other has it; and of "all" where there are several."""
    files = Counter(Path(name).name for name in counts)
    short = {name: Path(name).name if files[Path(name).name] == 1 else name for name in counts}
    named = {short[name]: each for name, each in counts.items()}
    return named if len(named) == 1 else {**named, "all": total_of(counts)}
