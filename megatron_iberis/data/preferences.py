"""Preferences as documents: of each pair both answers, with the prompt before them, as the chat template has them.

* The targets of a document are the tokens that its last assistant message says, the end mark among them. The prompt,
  earlier answers in it included, and what the calculator gave have none.
* A pair is trained on side by side. One that is longer than a row is cut at the ends of its answers, both at the same
  number of tokens, so that length alone tells them apart no better than before; or it is dropped.

No torch here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from megatron_iberis.errors import InputError
from megatron_iberis.tasks.preferences import Preference
from megatron_iberis.tokenizer import Tokenizer
from megatron_iberis.tokenizer.chat import render, render_for_completion


@dataclass(frozen=True)
class Answer:
    """A document: ids, and the number of the first that is the answer's; mask: which of the answer's are targets."""

    ids: npt.NDArray[np.int32]
    start: int
    mask: npt.NDArray[np.bool_]

    @property
    def size(self) -> int:
        """The places it takes in a row: one less than it has ids, for the last is a target only."""
        return len(self.ids) - 1

    @property
    def said(self) -> int:
        """How many ids the answer has."""
        return len(self.ids) - self.start

    @property
    def targets(self) -> npt.NDArray[np.int64]:
        """The id after each but the last, or -1."""
        found = np.full(self.size, -1, np.int64)
        found[self.start - 1 :] = np.where(self.mask, self.ids[self.start :], -1)
        return found

    def cut(self, said: int) -> Answer:
        """The same with at most so many ids of the answer."""
        return Answer(self.ids[: self.start + said], self.start, self.mask[:said])


@dataclass(frozen=True)
class Pair:
    """A preference as documents. number: which one it was of all that were read, from 0."""

    number: int
    where: str
    chosen: Answer
    rejected: Answer

    @property
    def size(self) -> int:
        return self.chosen.size + self.rejected.size

    @property
    def targets(self) -> tuple[int, int]:
        """How many there are in each answer."""
        return int(self.chosen.mask.sum()), int(self.rejected.mask.sum())

    def hash(self) -> bytes:
        """Of all that the model sees of it; 16 bytes."""
        digest = hashlib.blake2b(digest_size=16)
        for answer in (self.chosen, self.rejected):
            digest.update(np.array([len(answer.ids), answer.start], np.int64).tobytes())
            digest.update(answer.ids.tobytes() + answer.mask.tobytes())
        return digest.digest()


@dataclass
class Tally:
    """What became of the pairs of a source.

    equal: both answers were the same tokens. too_long: the prompt left no room for them, or they were not to be cut.
    cut: of those that were kept, the ones of which an answer lost its end. tokens and targets: of what was kept.
    """

    read: int = 0
    equal: int = 0
    too_long: int = 0
    cut: int = 0
    kept: int = 0
    tokens: int = 0
    targets: int = 0

    def __str__(self) -> str:
        return (
            f"{self.read:,} pairs read, {self.equal:,} dropped as equal, {self.too_long:,} as too long, "
            f"{self.kept:,} kept, {self.cut:,} of them cut; {self.tokens:,} tokens, {self.targets:,} targets"
        )


@dataclass
class PairReader:
    """Makes pairs of preferences, and keeps count by source. room: the places that both documents may take."""

    tokenizer: Tokenizer
    room: int
    over_long: Literal["cut", "drop"] = "cut"
    pairs: list[Pair] = field(default_factory=list)
    tallies: dict[str, Tally] = field(default_factory=dict)

    def add(self, source: str, preferences: Iterable[Preference]) -> None:
        """Takes in the preferences of a source. InputError that names the place of one that cannot be rendered."""
        tally = self.tallies.setdefault(source, Tally())
        read_before = sum(each.read for each in self.tallies.values())
        for number, preference in enumerate(preferences, read_before):
            tally.read += 1
            whole = self._answers(preference)
            fitting = self._fitting(*whole)
            if fitting is None:
                tally.too_long += 1
            elif np.array_equal(fitting[0].ids, fitting[1].ids):
                tally.equal += 1
            else:
                pair = Pair(number, preference.where, *fitting)
                self.pairs.append(pair)
                tally.kept += 1
                tally.cut += fitting[0] is not whole[0]
                tally.tokens += pair.size
                tally.targets += sum(pair.targets)

    def _answers(self, preference: Preference) -> tuple[Answer, Answer]:
        """The preferred one first."""
        try:
            start = len(render_for_completion(self.tokenizer, preference.prompt))
            found = []
            for content in (preference.chosen, preference.rejected):
                ids, mask = render(self.tokenizer, [*preference.prompt, {"role": "assistant", "content": content}])
                found.append(Answer(np.array(ids, np.int32), start, np.array(mask[start:], np.bool_)))
        except InputError as error:
            raise InputError(f"{preference.where}: {error}") from None
        return found[0], found[1]

    def _fitting(self, chosen: Answer, rejected: Answer) -> tuple[Answer, Answer] | None:
        """The answers, cut to one length if there is not room for both; None if that cannot be."""
        surplus = chosen.size + rejected.size - self.room
        if surplus <= 0:
            return chosen, rejected
        room, shorter = chosen.said + rejected.said - surplus, min(chosen.said, rejected.said)
        most = max(room // 2, room - shorter)
        cut = chosen.cut(most), rejected.cut(most)
        if self.over_long == "drop" or room < 2 or not all(answer.mask.any() for answer in cut):
            return None
        return cut
