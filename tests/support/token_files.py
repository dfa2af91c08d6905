"""Token files of ids that a test gives; the product's own come from text (`preprocess`) and from others (`merge`)."""

from __future__ import annotations

import json
import os
from typing import Any

import numpy as np
import numpy.typing as npt

from megatron_iberis import _C
from megatron_iberis.data.token_files.reader import token_dtype


class TokenFileWriter:
    """Writes PREFIX.bin and .idx, document by document; whole at the end of the block, or after finalize()."""

    def __init__(self, prefix: str | os.PathLike[str], vocab_size: int) -> None:
        self.prefix = os.fspath(prefix)
        self.dtype = token_dtype(vocab_size)
        self._ids = open(self.prefix + ".bin", "wb")  # noqa: SIM115
        self._index = _C.IndexWriter(self.prefix + ".idx", 8 if self.dtype == np.uint16 else 4)

    def add_document(self, tokens: npt.ArrayLike, sequence_lengths: npt.ArrayLike | None = None) -> None:
        """One document of `tokens` [n]: one sequence, or sequences of these lengths."""
        ids = np.asarray(tokens, self.dtype)
        self._ids.write(ids.tobytes())
        self._index.add_document(np.asarray([len(ids)] if sequence_lengths is None else sequence_lengths, np.int64))

    def add_documents(self, tokens: npt.ArrayLike, lengths: npt.ArrayLike) -> None:
        """len(lengths) documents of one sequence each, one after the other in `tokens` [sum(lengths)]."""
        self._ids.write(np.asarray(tokens, self.dtype).tobytes())
        self._index.add(np.asarray(lengths, np.int64))

    def finalize(self, manifest: dict[str, Any] | None = None) -> None:
        """Completes the files; `manifest` becomes PREFIX.json."""
        self._ids.close()
        self._index.finish()
        if manifest is not None:
            with open(self.prefix + ".json", "w", encoding="utf-8") as stream:
                json.dump(manifest, stream, ensure_ascii=False)

    def __enter__(self) -> TokenFileWriter:
        return self

    def __exit__(self, *raised: object) -> None:
        if not self._ids.closed:
            self.finalize()
