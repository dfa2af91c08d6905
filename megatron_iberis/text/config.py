"""`PreprocessConfig`: what to preprocess and how."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from megatron_iberis.errors import InputError

TRAIN, VALIDATION = "train", "validation"
SUFFIX = {TRAIN: "_text_document", VALIDATION: "_val_text_document"}
# What ends the run: a file that cannot be read; nothing; also a faulty record.
SKIP_RECORDS, SKIP, STOP = ON_ERROR = ("skip-records", "skip", "stop")
EXACT, MINHASH = DEDUP = ("exact", "minhash")


@dataclass(frozen=True)
class Shard:
    """One of `count` runs that share the input out among themselves, `number` from 1."""

    number: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """ "2/8" is the second of eight; InputError for anything else that is no shard."""
        number, slash, count = text.partition("/")
        if not (slash and number.isdecimal() and count.isdecimal()):
            raise InputError(f"--shard is I/N, such as 2/8 for the second of eight, not {text!r}.")
        return cls(int(number), int(count))

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    def name_of(self, prefix: str) -> str:
        """What the names of its files begin with."""
        return f"{prefix}.{self.number}-of-{self.count}"

    def check(self) -> None:
        """InputError if there is no such shard."""
        if not self.count:
            raise InputError(f"--shard {self}: there are no 0 shards: N is the number of runs, 1 or more.")
        if not 1 <= self.number <= self.count:
            raise InputError(
                f"there is no shard {self.number} of {self.count}: I goes from 1 to {self.count} in --shard I/N "
                f"(SLURM: --array=1-{self.count})."
            )


@dataclass(frozen=True)
class PreprocessConfig:
    """The command line's arguments, and what the manifest records of them."""

    input: Sequence[str]  # files, folders, globs, "-"
    tokenizer: str  # folder
    output_prefix: str
    workers: int = 1
    json_key: str = "text"
    prepend_bos: bool = True  # each document begins with <|bos|>, as nanochat has it
    append_eod: bool = False  # each document ends with <|bos|>, the only token between documents that there is
    min_chars: int = 0
    val_fraction: float = 0.0  # of the documents, by a hash of their split key
    split_key: str | None = None  # JSON key or column; None: the text itself
    on_error: str = SKIP_RECORDS
    dedup: str | None = None
    shuffle: int | None = None  # seed
    shard: Shard | None = None  # of the input, which is all that is done; None: everything
    resume: bool = False

    def check(self) -> None:
        """InputError if a value makes no sense."""
        for name, path in (("tokenizer", self.tokenizer), ("output-prefix", self.output_prefix)):
            if not path:
                raise InputError(f'--{name} is empty (""): name a path.')
        if self.workers < 1:
            raise InputError(f"there can't be {self.workers} workers: use --workers 1 or more.")
        if not 0 <= self.val_fraction < 1:
            raise InputError(f"--val-fraction must be at least 0 and below 1, not {self.val_fraction}.")
        if self.split_key is not None and not self.val_fraction:
            raise InputError("--split-key says how to split: give --val-fraction too, or leave it out.")
        if self.min_chars < 0:
            raise InputError(f"--min-chars must be 0 or more, not {self.min_chars}.")
        if self.shuffle is not None and not 0 <= self.shuffle < 2**64:
            raise InputError(f"--shuffle must be a seed from 0 to 2^64 - 1, not {self.shuffle}.")
        if self.shard is not None:
            self.shard.check()
        for name, value, choices in (("on_error", self.on_error, ON_ERROR), ("dedup", self.dedup, (None, *DEDUP))):
            if value not in choices:
                raise InputError(f"{name} is one of {', '.join(map(str, choices))}, not {value!r}.")

    @property
    def prefix(self) -> str:
        """What the names of all files of this run begin with."""
        return self.output_prefix if self.shard is None else self.shard.name_of(self.output_prefix)

    @property
    def splits(self) -> list[str]:
        return [TRAIN, VALIDATION] if self.val_fraction else [TRAIN]

    @property
    def specials_per_document(self) -> int:
        return self.prepend_bos + self.append_eod

    def arguments(self) -> dict[str, Any]:
        """As the manifest records them."""
        arguments = {**dataclasses.asdict(self), "input": list(self.input)}
        del arguments["resume"], arguments["shard"]  # the first makes no difference to the files
        return arguments if self.shard is None else {**arguments, "shard": str(self.shard)}
