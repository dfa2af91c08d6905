"""What duplicates share: a document's keys. Two documents with a key in common are taken for duplicates.

* exact: one key, the hash of the text after NFKC, case folding and making every run of white space one space.
* minhash: 16 keys, each the hash of 8 of the 128 slots of a MinHash (rensa's R-MinHash) of the text's runs of 8
  characters, which suits Japanese and English alike. Of pairs whose runs agree to a share s (Jaccard),
  1 - (1 - s^8)^16 are found: 6 % at 0.5, 61 % at 0.7, 95 % at 0.8, all but 1 in 8,000 at 0.9. The start of a very
  long text stands for all of it.

Keys have 64 bits: among a billion documents one is taken for the duplicate of a stranger with a probability of 3 %.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

import numpy as np
import xxhash

from megatron_iberis.errors import InputError

KEYS_OF = {None: 0, "exact": 1, "minhash": 16}
_SLOTS = 128
_SEED = 20_250_101  # of R-MinHash: any, but for ever the same
_RUN = 8  # characters
_LONGEST = 1 << 21  # characters of a text that are looked at
_FACTOR = np.uint64(0x9E3779B97F4A7C15)


def keys_of(texts: Sequence[str], dedup: str | None) -> np.ndarray:
    """Keys of each text, uint64 [len(texts), KEYS_OF[dedup]]."""
    if not texts or dedup is None:
        return np.empty((len(texts), KEYS_OF[dedup]), np.uint64)
    if dedup == "exact":
        digests = [xxhash.xxh3_64_intdigest(normalise(text).encode()) for text in texts]
        return np.array(digests, np.uint64)[:, None]
    return _minhash_keys(texts)


def normalise(text: str) -> str:
    """The text without what does not make it another one: width and composition of characters, case, white space."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def check_installed(dedup: str | None) -> None:
    """InputError if --dedup minhash lacks its library."""
    if dedup == "minhash":
        try:
            import rensa  # noqa: F401
        except ImportError:
            raise InputError(
                "--dedup minhash needs the package rensa: pip install 'megatron_iberis[dedup]', or use --dedup exact."
            ) from None


def _minhash_keys(texts: Sequence[str]) -> np.ndarray:
    from rensa import RMinHash

    runs = [hashed_runs(normalise(text[:_LONGEST])) for text in texts]
    offsets = np.cumsum([0, *map(len, runs)]).tolist()
    rows = RMinHash.digest_matrix_from_flat_token_hashes(np.concatenate(runs), offsets, _SLOTS, _SEED).to_rows()
    bands = np.array(rows, "<u4").reshape(len(texts), KEYS_OF["minhash"], -1)
    keys = [[xxhash.xxh3_64_intdigest(band.tobytes(), seed=i) for i, band in enumerate(row)] for row in bands]
    return np.array(keys, np.uint64)


def hashed_runs(text: str) -> np.ndarray:
    """A hash of every run of _RUN characters, uint64; a shorter text is one run."""
    characters = np.frombuffer(text.encode("utf-32-le"), "<u4").astype(np.uint64)
    missing = _RUN - len(characters)
    hashes = np.pad(characters, (0, missing)) if missing > 0 else characters
    factor = int(_FACTOR)
    for width in (1, 2, 4):  # of runs of so many characters, those of twice as many
        hashes = hashes[:-width] * np.uint64(factor) + hashes[width:]
        factor = factor * factor % 2**64
    hashes ^= hashes >> np.uint64(32)  # the low bits of a product depend on the low bits of its factors only
    hashes *= _FACTOR
    return hashes ^ (hashes >> np.uint64(29))
