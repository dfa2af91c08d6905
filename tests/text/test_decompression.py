"""Whatever `gzip -t`, `zstd -t` or `xz -t` finds fault with is named, and of the rest no byte is lost."""

from __future__ import annotations

import gzip
import lzma
import random
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from megatron_iberis.errors import InputError
from megatron_iberis.text.reading.decompression import decompressed


def _zstd(content: bytes) -> bytes:
    return zstandard.ZstdCompressor(write_checksum=True).compress(content)


COMPRESS: dict[str, Callable[[bytes], bytes]] = {".gz": gzip.compress, ".xz": lzma.compress, ".zst": _zstd}
CONTENTS = [b"".join(b"part %d, line %d\n" % (part, i * i) for i in range(3000)) for part in range(3)]
SKIPPABLE = b"\x50\x2a\x4d\x18\x05\x00\x00\x00hello"  # a zstd frame of no content


@pytest.fixture(params=COMPRESS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def content(kind: str, data: bytes, tmp_path: Path) -> bytes:
    path = tmp_path / f"a{kind}"
    path.write_bytes(data)
    with path.open("rb") as stream:
        return b"".join(decompressed(stream, kind, path))


def test_all_members_are_read_empty_ones_and_padding_too(kind: str, tmp_path: Path) -> None:
    members = [COMPRESS[kind](part) for part in (*CONTENTS, b"", b"x\n")]
    if kind == ".zst":
        members.insert(1, SKIPPABLE)
    padding = {".gz": bytes(70_001), ".xz": bytes(4), ".zst": SKIPPABLE}[kind]
    between = bytes(8) if kind == ".xz" else b""
    whole = b"".join(CONTENTS) + b"x\n"
    assert content(kind, between.join(members) + padding, tmp_path) == whole


@pytest.mark.parametrize("member", range(3))
def test_damage_in_any_member_is_named(kind: str, member: int, tmp_path: Path) -> None:
    members = [bytearray(COMPRESS[kind](part)) for part in CONTENTS]
    draw = random.Random(member)
    for place in [*draw.sample(range(12, len(members[member])), 20), len(members[member]) - 1]:
        members[member][place] ^= 1
        with pytest.raises(InputError, match=rf"a{kind} is (damaged|cut off)"):
            content(kind, b"".join(members), tmp_path)
        members[member][place] ^= 1
    assert content(kind, b"".join(members), tmp_path) == b"".join(CONTENTS)


def test_a_file_cut_anywhere_but_between_members_is_named(kind: str, tmp_path: Path) -> None:
    members = [COMPRESS[kind](part) for part in CONTENTS]
    data = b"".join(members)
    for length in random.Random(0).sample(range(1, len(data)), 40):
        if length in (len(members[0]), len(members[0] + members[1])):
            continue
        with pytest.raises(InputError, match=rf"a{kind} is (damaged|cut off)"):
            content(kind, data[:length], tmp_path)


@pytest.mark.parametrize("garbage", [b"x", b"{}\n", bytes(1) + b"x", bytes(range(1, 200))])
def test_what_stands_behind_the_end_is_named(kind: str, garbage: bytes, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=rf"a{kind} is (damaged|cut off)"):
        content(kind, COMPRESS[kind](CONTENTS[0]) + garbage, tmp_path)


def test_padding_that_the_format_does_not_know_is_named(tmp_path: Path) -> None:
    for kind, padding in ((".xz", bytes(3)), (".zst", bytes(4))):
        with pytest.raises(InputError, match=rf"a{kind} is (damaged|cut off)"):
            content(kind, COMPRESS[kind](CONTENTS[0]) + padding, tmp_path)
    with pytest.raises(InputError, match=r"a\.gz is damaged"):  # zeros, then a member: gzip ends before it
        content(".gz", gzip.compress(b"a") + bytes(8) + gzip.compress(b"b"), tmp_path)
