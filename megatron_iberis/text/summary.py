"""`Summary`: what preprocessing has read and written, in numbers; what the journal keeps and the manifest says."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from megatron_iberis.data.token_files.manifest import report
from megatron_iberis.errors import InputError
from megatron_iberis.text.config import PreprocessConfig
from megatron_iberis.text.encoding import EncodedBatch
from megatron_iberis.text.reading.batch import Position
from megatron_iberis.text.reading.records import Rejects, Tally


class Vocabulary(NamedTuple):
    """What token files tell of their tokenizer: its hash and its number of ids."""

    fingerprint: str
    size: int


@dataclass
class Counts:
    """What went into one token file, or came from one input file."""

    documents: int = 0
    tokens: int = 0  # with <|bos|>
    text_bytes: int = 0

    def add(self, documents: np.ndarray, sign: int = 1) -> None:
        """Counts documents (encoding.document_dtype) in, or out with sign -1."""
        self.documents += sign * len(documents)
        self.tokens += sign * int(documents["tokens"].sum(dtype=np.int64))
        self.text_bytes += sign * int(documents["bytes"].sum(dtype=np.int64))

    def take_in(self, other: Counts) -> None:
        """Adds what another run has counted."""
        self.documents += other.documents
        self.tokens += other.tokens
        self.text_bytes += other.text_bytes

    def report(self, specials_per_document: int) -> dict[str, Any]:
        """For the manifest."""
        return report(
            self.documents, self.tokens, self.tokens - specials_per_document * self.documents, self.text_bytes
        )


@dataclass
class Summary:
    """What was done until `position`. `splits` and `files` count by token file and by input file.

    read = written + empty + too short + rejected + duplicates, or check() fails.
    """

    paths: list[str]
    splits: dict[str, Counts]
    files: list[Counts]
    tally: Tally = field(default_factory=Tally)
    duplicates: int = 0
    position: Position = field(default_factory=Position)
    versions: list[list[int]] = field(default_factory=list)  # of the input files: bytes, time of change
    outputs: list[str] = field(default_factory=list)  # prefixes of the token files
    finished_before: bool = False  # so nothing was done
    notices: list[str] = field(default_factory=list)  # of this run: what was not read, beside the documents

    @classmethod
    def of(cls, paths: Sequence[str], versions: list[list[int]], splits: Sequence[str]) -> Summary:
        """Of nothing yet."""
        counts = {split: Counts() for split in splits}
        return cls(list(paths), counts, [Counts() for _ in paths], versions=versions)

    @property
    def total(self) -> Counts:
        return Counts(*(sum(getattr(c, f.name) for c in self.splits.values()) for f in dataclasses.fields(Counts)))

    def add(self, batch: EncodedBatch) -> None:
        self.tally.add(batch.tally)
        self._count(batch.documents, 1)
        self.position = batch.end

    def take_in(self, later: Summary) -> None:
        """Adds what another run has done of the same input, behind this one's part of it."""
        self.tally.add(later.tally)
        mine, others = [*self.splits.values(), *self.files], [*later.splits.values(), *later.files]
        for counts, more in zip(mine, others, strict=True):
            counts.take_in(more)
        self.position = later.position

    def remove(self, duplicates: np.ndarray) -> None:
        """Takes documents out again."""
        self._count(duplicates, -1)
        self.duplicates += len(duplicates)

    def _count(self, documents: np.ndarray, sign: int) -> None:
        for number, counts in enumerate(self.splits.values()):
            counts.add(documents[documents["split"] == number], sign)
        for file in np.unique(documents["file"]).tolist():
            self.files[file].add(documents[documents["file"] == file], sign)

    def check(self, config: PreprocessConfig) -> None:
        """InputError if a split came out empty, RuntimeError if the counts do not reconcile."""
        self.tally.check_usable(config.json_key)
        written = self.total.documents
        if written + self.duplicates != self.tally.usable:
            raise RuntimeError(
                f"{self.tally.usable} documents were read, but {written} written and {self.duplicates} removed as "
                "duplicates: this is a bug."
            )
        for split, counts in self.splits.items():
            if not counts.documents:
                by = "texts" if config.split_key is None else f"values of {config.split_key!r}"
                raise InputError(
                    f"none of the {written:,} documents fell into the {split} split: use another --val-fraction than "
                    f"{config.val_fraction}, or more documents with different {by}."
                )

    def as_state(self) -> dict[str, Any]:
        """For the journal."""
        return dataclasses.asdict(self)

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Summary:
        tally = state["tally"]
        rejected = {kind: Rejects(**rejects) for kind, rejects in tally["rejected"].items()}
        return cls(
            **{
                **state,
                "splits": {split: Counts(**counts) for split, counts in state["splits"].items()},
                "files": [Counts(**counts) for counts in state["files"]],
                "tally": Tally(**{**tally, "rejected": rejected}),
                "position": Position(**state["position"]),
            }
        )

    @classmethod
    def from_manifests(cls, manifests: dict[str, dict[str, Any]], outputs: list[str]) -> Summary:
        """What the manifests of the splits tell, without the counts by input file."""
        first = next(iter(manifests.values()))
        read = dict(first["input"])
        del read["written"]
        rejected = {kind: Rejects(**rejects) for kind, rejects in read.pop("rejected").items()}
        splits = {
            split: Counts(manifest["documents"], manifest["tokens"], manifest["text_bytes"])
            for split, manifest in manifests.items()
        }
        duplicates = read.pop("duplicates")
        paths = list(first["files"])
        tally = Tally(**read, rejected=rejected)
        return cls(paths, splits, [], tally, duplicates, outputs=outputs, finished_before=True)

    def manifest(
        self, config: PreprocessConfig, vocabulary: Vocabulary, split: str, hashes: dict[str, str]
    ) -> dict[str, Any]:
        """PREFIX.json of the token file of `split`, whose files have these sha256 `hashes`."""
        tally, specials = self.tally, config.specials_per_document
        files = zip(self.paths, self.files, self.versions, strict=True)
        return {
            "split": split,
            "tokenizer": vocabulary.fingerprint,
            "vocab_size": vocabulary.size,
            **self.splits[split].report(specials),
            "sha256": hashes,
            # Of the whole run: read = written (over all splits) + empty + too_short + rejected + duplicates.
            "input": {
                "read": tally.read,
                "written": {name: counts.documents for name, counts in self.splits.items()},
                "empty": tally.empty,
                "too_short": tally.too_short,
                "rejected": {kind: dataclasses.asdict(rejects) for kind, rejects in tally.rejected.items()},
                "duplicates": self.duplicates,
            },
            "files": {path: {**counts.report(specials), "version": version} for path, counts, version in files},
            "arguments": config.arguments(),
        }
