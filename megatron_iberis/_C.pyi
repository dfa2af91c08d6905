# ruff: noqa: N999
"""Types of the C++ extension (csrc/bindings/).

What a user can mend (a damaged file, weights that cannot be mixed) is an InputError, a wrong argument a ValueError, a
system call that fails an OSError.
"""

import os
from collections.abc import Sequence
from typing import Any, final

import numpy as np
import numpy.typing as npt

Int32s = npt.NDArray[np.int32]
Int64s = npt.NDArray[np.int64]

class Encoder:
    """Text -> ids with the very ids of SentencePiece's encode, for a model that normalises nothing."""

    def encode(self, text: str) -> Int32s:
        """The ids of the whole text; UnicodeEncodeError if it holds a lone surrogate."""

@final
class BpeEncoder(Encoder):
    """`pieces` by id, b"" for those that are never found in text; `byte_ids` of the 256 byte pieces."""

    def __init__(self, pieces: Sequence[bytes], scores: Sequence[float], byte_ids: Sequence[int]) -> None: ...

@final
class UnigramEncoder(Encoder):
    """Arguments as BpeEncoder's."""

    def __init__(self, pieces: Sequence[bytes], scores: Sequence[float], byte_ids: Sequence[int]) -> None: ...

@final
class IndexWriter:
    """Writes a .idx in constant memory; the file is complete when finish() returns, removed if it never does.

    A system call that fails is an OSError, after which the writer is closed."""

    def __init__(self, path: str | os.PathLike[str], dtype_code: int) -> None: ...
    def add(self, lengths: npt.NDArray[np.integer]) -> None:
        """Each length is a document of one sequence."""
    def add_document(self, lengths: npt.NDArray[np.integer]) -> None:
        """All lengths together are the sequences of one document."""
    def finish(self) -> None: ...
    def abort(self) -> None: ...

@final
class IndexReader:
    """A memory-mapped .idx; opening checks the header and the ends, verify() everything.

    Every call may find the file damaged: an InputError that ends with `fix`, which says what to do about it."""

    def __init__(self, path: str | os.PathLike[str], fix: str) -> None: ...
    @property
    def dtype_code(self) -> int:
        """8 for uint16, 4 for int32."""
    @property
    def num_sequences(self) -> int: ...
    @property
    def num_documents(self) -> int: ...
    @property
    def num_tokens(self) -> int: ...
    @property
    def lengths(self) -> Int32s:
        """Tokens of each sequence, [num_sequences]; a read-only view."""
    @property
    def document_index(self) -> Int64s:
        """Document d is the sequences [index[d], index[d + 1]); [num_documents + 1], a read-only view."""
    def sequence(self, i: int) -> tuple[int, int]:
        """(first token, number of tokens); IndexError when there is no such sequence."""
    def documents_of(self, tokens: npt.NDArray[np.integer]) -> Int64s:
        """The document that each token belongs to."""
    def verify(self) -> None: ...

@final
class Blend:
    """Which file every sample of a mixture comes from (csrc/order/blend.h); positive weights, below 2^62 in sum."""

    def __init__(self, weights: Sequence[int]) -> None: ...
    def locate(self, first: int, count: int) -> tuple[Int64s, Int64s]:
        """The files of the samples [first, first + count), and the number of samples of that file before each."""

@final
class Int8Matrix:
    """Packed int8 weights [outputs, inputs] (csrc/decode/int8_linear.h), in memory that it shares with the arrays.

    values: [blocks, groups, group / 2, 16, 2]; scales: bf16 as uint16, [blocks, groups, 16]; group: 32 or 64."""

    def __init__(
        self,
        values: npt.NDArray[np.int8],
        scales: npt.NDArray[np.uint16],
        outputs: int,
        inputs: int,
        group: int,
    ) -> None: ...
    def multiply(
        self,
        x: npt.NDArray[np.float32],
        y: npt.NDArray[np.float32],
        threads: int,
        kernel: str = "",
        relu_squared: bool = False,
    ) -> None:
        """Writes x [N, inputs] times the transposed weights to y [N, outputs], in at most so many threads.

        kernel: one of int8_kernels(), "" for the best; all give the same bits. relu_squared: of y, max(y, 0)^2."""

def bf16_kernels() -> list[str]:
    """What this CPU can run of bf16_linear, the best last: "portable", "avx2", "avx512"."""

def bf16_linear(
    weight: npt.NDArray[np.uint16],
    x: npt.NDArray[np.uint16],
    y: npt.NDArray[np.uint16],
    threads: int,
    kernel: str = "",
    relu_squared: bool = False,
) -> None:
    """Writes x [N, I] times the transposed weight [O, I] to y [N, O], all bf16, in at most so many threads.

    kernel: one of bf16_kernels(), "" for the best; all give the same bits (csrc/decode/bf16_linear.h).
    relu_squared: of y, max(y, 0)^2."""

def best_fit(index: IndexReader, row_tokens: int) -> tuple[Int64s, npt.NDArray[np.uint32], int, int]:
    """Whole documents packed into rows (order/best_fit.h): starts [rows + 1], documents, cropped, padded tokens."""

def convolution_step(
    x: npt.NDArray[Any],
    alpha: npt.NDArray[Any],
    a: npt.NDArray[Any],
    b: npt.NDArray[Any],
    taps: npt.NDArray[Any],
    inputs: npt.NDArray[Any],
    slots: npt.NDArray[np.int64],
    out: npt.NDArray[Any],
    threads: int,
) -> None:
    """Writes SLC2's mixing of N tokens to out [N, E] (csrc/decode/convolution_step.h).

    x, b: [N, E]; alpha: [N, H]; a: [N, E/H]; taps: [K, E]; inputs: [K-1, slots, E], which move on. All fp32, or all
    bf16 as uint16."""

def int8_kernels() -> list[str]:
    """What this CPU can run, the best last: "portable", "avx2", "avx512_vnni"."""

def megatron_sample_index(lengths: Int32s, order: Int32s, sequence_length: int) -> Int32s | Int64s:
    """megatron-core's build_sample_idx, [samples + 1, 2]: number in `order`, position (csrc/order/megatron_order.h).

    lengths: tokens of each sequence; order: which of them come one after the other."""

def mix(
    x: npt.NDArray[Any],
    alpha: npt.NDArray[Any],
    a: npt.NDArray[Any],
    b: npt.NDArray[Any],
    taps: npt.NDArray[Any],
    past: npt.NDArray[Any] | None,
    positions: npt.NDArray[np.int64] | None,
    norm_eps: float | None,
    y: npt.NDArray[Any],
    threads: int,
    kernel: str = "",
) -> None:
    """Writes SLC2's mixing to y (csrc/training/mixing.h).

    x, b, y: [T, B, E]; alpha: [T, B, H]; a: [T, B, E/H]; taps: [K, E]; past: [K-1, B, E]; positions: [T, B]. All
    fp32, or all bf16 as uint16. norm_eps: of the RMS norm of y over E, without which there is none. kernel: one of
    mixing_kernels(), "" for the best."""

def mix_backward(
    x: npt.NDArray[Any],
    alpha: npt.NDArray[Any],
    a: npt.NDArray[Any],
    b: npt.NDArray[Any],
    taps: npt.NDArray[Any],
    past: npt.NDArray[Any] | None,
    positions: npt.NDArray[np.int64] | None,
    norm_eps: float | None,
    d_y: npt.NDArray[Any],
    d_x: npt.NDArray[Any],
    d_alpha: npt.NDArray[Any],
    d_a: npt.NDArray[Any],
    d_b: npt.NDArray[Any],
    d_past: npt.NDArray[Any] | None,
    d_taps: npt.NDArray[np.float32],
    threads: int,
    kernel: str = "",
) -> None:
    """Writes the gradients of all that `mix` takes; d_taps: [tiles, K, E], to be summed over the tiles.

    tiles: B times the tiles of mixing_tile_steps() steps that T is cut into."""

def mixing_kernels() -> list[str]:
    """What this CPU can run of mix, the best last: "portable", "avx2", "avx512"."""

def mixing_tile_steps() -> int: ...
def permute_range(start: int, count: int, n: int, key: int) -> Int64s:
    """Images of the indices [start, start + count) under the permutation of [0, n) with this 64-bit key.

    The permutation is described in csrc/order/permutation.h."""

def rms_norm(x: npt.NDArray[Any], out: npt.NDArray[Any], eps: float, threads: int) -> None:
    """Writes x / sqrt(mean(x^2) + eps) of each row of x [N, D] to out; both fp32, or both bf16 as uint16."""

def sample_offsets(
    first_sample: int, count: int, num_tokens: int, sequence_length: int, seed: int, shuffle: bool
) -> Int64s:
    """First token of the samples [first_sample, first_sample + count) (csrc/order/samples.h)."""

def single_query_attention(
    q: npt.NDArray[Any],
    keys: npt.NDArray[Any],
    values: npt.NDArray[Any],
    starts: npt.NDArray[np.int64],
    lengths: npt.NDArray[np.int64],
    out: npt.NDArray[Any],
    threads: int,
    fast: bool = True,
) -> None:
    """Writes to out the attention of q [B, H, D] to each request's rows of keys and values [R, KV, D]
    (csrc/decode/attention.h).

    All fp32, or all bf16 as uint16. fast: by the best instructions that this CPU has, not by plain C++."""

def softcap_kernels() -> list[str]:
    """What this CPU can run of softcap_pass, the best last: "portable", "avx2", "avx512"."""

def softcap_pass(
    logits: npt.NDArray[Any],
    targets: npt.NDArray[np.int64],
    softcap: float,
    range: float,
    padding: int,
    gradient: bool,
    totals: npt.NDArray[np.float32],
    at_target: npt.NDArray[np.float32],
    threads: int,
    kernel: str = "",
) -> None:
    """Of each row of logits [N, V], fp32 or bf16 as uint16, the sum of likelihoods to totals [N] and the target's s
    to at_target [N]; with `gradient` also the logits' own, in place (csrc/training/softcap.h).

    padding: so many at a row's end are no tokens. kernel: one of softcap_kernels(), "" for the best."""
