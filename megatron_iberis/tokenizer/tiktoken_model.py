"""`TiktokenTokenizer`: a byte-level BPE as tiktoken runs it, such as nanochat's.

Its model file is JSON, and all that makes the ids is in it: the split pattern, the specials with their ids, and the
merges (base64 of the bytes, in the order of their ids). Needs the package tiktoken: pip install
'megatron_iberis[tokenizers]'.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from megatron_iberis.errors import InputError
from megatron_iberis.tokenizer.tokenizer import SPECIALS, Tokenizer, lone_surrogate

# Of every class of characters that a split pattern knows: one that passes over any of them loses text.
_PROBE = "Don't  pay １２3 yen!\r\n\n\t あア亜ー、。「」 e\u0301\u200d👩\u00a0\u3000\u2581\0\x7f\ue000\U0010ffff \n "


class TiktokenTokenizer(Tokenizer):
    """See `Tokenizer`."""

    kinds = ("tiktoken",)
    model_file = "tiktoken.json"

    def __init__(self, pattern: str, merges: Mapping[bytes, int], specials: Mapping[str, int]) -> None:
        """`merges`: bytes -> id, which is also the order of merging. InputError if it can't hold every text."""
        _check(merges, specials)
        specials = dict(sorted(specials.items(), key=lambda special: special[1]))
        model = {
            "pattern": pattern,
            "specials": specials,
            "merges": [base64.b64encode(b).decode() for b in sorted(merges, key=lambda b: merges[b])],
        }
        content = json.dumps(model, ensure_ascii=False, indent=0).encode()
        spelled = [b""] * (len(merges) + len(specials))
        for table in (merges, {name.encode(): i for name, i in specials.items()}):
            for part, i in table.items():
                spelled[i] = part
        super().__init__(content, {}, specials, spelled)
        self.manifest = {
            "kind": "tiktoken",
            "vocab_size": self.vocab_size,
            "specials": self.specials,
            "sha256": self.fingerprint,
        }
        self._encoding = _encoding(pattern, dict(merges), self.specials)
        if self.decode(self.encode(_PROBE)) != _PROBE:
            raise InputError(
                "the tokenizer's split pattern leaves characters out, so text would be lost: use another."
            )

    @classmethod
    def from_model(cls, model: bytes, manifest: dict[str, Any]) -> Tokenizer:
        content = json.loads(model)
        merges = {base64.b64decode(text): i for i, text in enumerate(content["merges"])}
        return cls(content["pattern"], merges, content["specials"])

    def encode_array(self, text: str) -> np.ndarray:
        try:
            ids: np.ndarray = self._encoding.encode_to_numpy(text, disallowed_special=())
        except UnicodeEncodeError:
            raise lone_surrogate(text) from None
        return ids.view(np.int32)


def _check(merges: Mapping[bytes, int], specials: Mapping[str, int]) -> None:
    missing = [name for name in SPECIALS if name not in specials]
    if missing:
        raise InputError(f"the tokenizer has no special {missing[0]}: only nanochat's, with its nine, can be used.")
    if not all(bytes([byte]) in merges for byte in range(256)):
        raise InputError("the tokenizer lacks some of the 256 single bytes, so text would be lost: use another.")
    ids = sorted([*merges.values(), *specials.values()])
    if ids != list(range(len(ids))) or max(merges.values()) >= len(merges):
        raise InputError(
            "the tokenizer's ids are not 0, 1, 2, ... with the specials last: use one that nanochat wrote."
        )


def _encoding(pattern: str, merges: dict[bytes, int], specials: dict[str, int]) -> Any:
    try:
        import tiktoken
    except ImportError:
        raise InputError(
            "this tokenizer needs the package tiktoken: pip install 'megatron_iberis[tokenizers]'."
        ) from None
    try:
        return tiktoken.Encoding("megatron_iberis", pat_str=pattern, mergeable_ranks=merges, special_tokens=specials)
    except ValueError as error:
        raise InputError(f"the tokenizer's split pattern is not valid ({error}): use another.") from None
