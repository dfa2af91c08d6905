"""From what a recipe says of its data to opened sources of samples: no torch, so that a mistake shows at once."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from megatron_iberis.data.order.best_fit import open_packing
from megatron_iberis.data.order.blending import Blend, Part, read_mixture
from megatron_iberis.data.order.concatenated import SampleOrder
from megatron_iberis.data.order.megatron import open_megatron_order
from megatron_iberis.data.rows import ConcatSource, FileSource, Mixture, best_fit_source, megatron_source
from megatron_iberis.data.token_files.names import TRAIN_ENDING, VALIDATION_ENDING, is_token_file, token_file_prefix
from megatron_iberis.data.token_files.reader import TokenFile
from megatron_iberis.errors import InputError
from megatron_iberis.tokenizer import Tokenizer


@dataclass(frozen=True)
class RowLayout:
    """How rows are made of token files. vocab_size: the model's; document_mask: keep documents in a row apart."""

    sequence_length: int
    vocab_size: int
    seed: int
    packing: Literal["concat", "best_fit", "megatron"] = "concat"
    document_mask: bool = False


def open_mixture(text: str, tokenizer: Tokenizer, layout: RowLayout, samples: int) -> Mixture:
    """The training samples of a mixture: "a", "a | b" or "0.7 a | 0.3 b". samples: so many are asked for in all.

    Raises InputError when the text cannot be read, or a token file is missing, damaged, too short for a row, or made
    with another tokenizer.
    """
    parts = read_mixture(text)
    files = [_open(f"data.train = {text}", part, tokenizer, layout, TRAIN_ENDING) for part in parts]
    weights = [part.weight or _rows_an_epoch(file, layout) for part, file in zip(parts, files, strict=True)]
    try:
        blend = Blend(weights)
    except ValueError as error:
        raise InputError(f"data.train = {text}: {error}") from None
    shares = [Fraction(weight) / sum(weights) for weight in weights]
    return Mixture(
        [
            _PACKINGS[layout.packing](file, layout, layout.seed + number, math.ceil(samples * share))
            for number, (file, share) in enumerate(zip(files, shares, strict=True))
        ],
        blend,
    )


def open_validation(path: str, tokenizer: Tokenizer, layout: RowLayout) -> ConcatSource:
    """Held-out text in the order of the file, whatever the packing of the training text. Raises as `open_mixture`."""
    file = _open(f"data.val = {path}", Part(path, None, path), tokenizer, layout, VALIDATION_ENDING, TRAIN_ENDING)
    order = SampleOrder(file.num_tokens, layout.sequence_length, layout.seed, shuffle=False)
    return ConcatSource(file, order, layout.vocab_size, layout.document_mask)


def _open(setting: str, part: Part, tokenizer: Tokenizer, layout: RowLayout, *endings: str) -> TokenFile:
    prefix = token_file_prefix(part.path, *endings)
    if part.weight is not None and not is_token_file(part.path):
        raise InputError(
            f"{setting}: there is neither {prefix}.idx nor a token file '{part.written}': give the path of one, "
            "or make it with data_tools/preprocess.py."
        )
    try:
        file = TokenFile(prefix)
        SampleOrder(file.num_tokens, layout.sequence_length, layout.seed, shuffle=False)  # refuses a short file
    except ValueError as error:
        raise InputError(f"{setting}: {error}") from None
    made_with = (file.manifest or {}).get("tokenizer")
    if made_with and made_with != tokenizer.fingerprint:
        raise InputError(
            f"{setting}: {prefix} was made with another tokenizer than the one of this run: give the tokenizer it "
            "was made with (--data.tokenizer), or make the token file again with data_tools/preprocess.py."
        )
    return file


def _rows_an_epoch(file: TokenFile, layout: RowLayout) -> int:
    if layout.packing == "best_fit":
        return open_packing(file, layout.sequence_length).num_rows
    return file.num_tokens // layout.sequence_length


def _concat(file: TokenFile, layout: RowLayout, seed: int, samples: int) -> FileSource:
    order = SampleOrder(file.num_tokens, layout.sequence_length, seed, shuffle=True)
    return ConcatSource(file, order, layout.vocab_size, layout.document_mask)


def _best_fit(file: TokenFile, layout: RowLayout, seed: int, samples: int) -> FileSource:
    rows = open_packing(file, layout.sequence_length)
    return best_fit_source(file, rows, seed, layout.vocab_size, layout.document_mask)


def _megatron(file: TokenFile, layout: RowLayout, seed: int, samples: int) -> FileSource:
    order = open_megatron_order(file, layout.sequence_length, seed, samples)
    return megatron_source(file, order, layout.vocab_size, layout.document_mask)


_PACKINGS = {"concat": _concat, "best_fit": _best_fit, "megatron": _megatron}
