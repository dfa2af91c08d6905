"""Tables: whatever schema Arrow allows is read, or refused in a sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import compute, feather, parquet

from megatron_iberis.errors import InputError

from .test_reading import read


class Marked(pyarrow.ExtensionType):
    """A type of somebody's own."""

    def __init__(self, storage: Any) -> None:
        super().__init__(storage, "megatron_iberis.tests.marked")

    def __arrow_ext_serialize__(self) -> bytes:
        return b""

    @classmethod
    def __arrow_ext_deserialize__(cls, storage: Any, serialized: bytes) -> Marked:
        return cls(storage)


WORDS = pyarrow.array(["words", "本文", None, "words"])
VIEW = WORDS.cast(pyarrow.string_view())
TEXTS = {
    "large_string": WORDS.cast(pyarrow.large_string()),
    "string_view": VIEW,
    "binary": WORDS.cast(pyarrow.binary()),
    "large_binary": WORDS.cast(pyarrow.large_binary()),
    "binary_view": WORDS.cast(pyarrow.binary_view()),
    "dictionary": WORDS.dictionary_encode(),
    "dictionary of views": VIEW.dictionary_encode(),
    "runs": compute.run_end_encode(WORDS),
    "extension": pyarrow.ExtensionArray.from_storage(Marked(pyarrow.string()), WORDS),
    "extension of a dictionary": pyarrow.ExtensionArray.from_storage(
        Marked(WORDS.dictionary_encode().type), WORDS.dictionary_encode()
    ),
}
NO_TEXTS = {
    "int64": pyarrow.array([1, 2, 3]),
    "list<": pyarrow.array([["a"], [], None]),
    "struct<": pyarrow.array([{"text": "a"}]),
    "fixed_size_binary": pyarrow.array([b"ab"], pyarrow.binary(2)),
    "dictionary<values=int64": pyarrow.array([1, 1]).dictionary_encode(),
    "union": pyarrow.UnionArray.from_sparse(pyarrow.array([0], pyarrow.int8()), [WORDS[:1], pyarrow.array([1])]),
}


def write(folder: Path, arrays: list[Any], names: list[str]) -> list[Path]:
    """As .parquet (where that has such a type), Feather and a stream."""
    table = pyarrow.Table.from_arrays(arrays, names)
    paths = [folder / "a.parquet", folder / "a.feather", folder / "a.arrow"]
    try:
        parquet.write_table(table, paths[0])
    except pyarrow.ArrowNotImplementedError:
        del paths[0]
    feather.write_feather(table, str(folder / "a.feather"))
    with pyarrow.ipc.new_stream(str(folder / "a.arrow"), table.schema) as stream:
        stream.write_table(table)
    return paths


@pytest.mark.parametrize("kind", TEXTS)
def test_text_is_read_however_arrow_stores_it(kind: str, tmp_path: Path) -> None:
    for path in write(tmp_path, [TEXTS[kind]], ["text"]):
        documents, tally = read(path)
        assert [(d.text, d.line) for d in documents] == [("words", 1), ("本文", 2), ("words", 4)]
        assert tally.rejected["wrong type"].first == f"{path}:3"


@pytest.mark.parametrize("kind", NO_TEXTS)
def test_a_column_without_text_is_refused(kind: str, tmp_path: Path) -> None:
    array = NO_TEXTS[kind]
    for path in write(tmp_path, [array, WORDS[: len(array)]], ["text", "body"]):
        name = path.name
        with pytest.raises(InputError, match=rf"column 'text' of .*{name} holds .*not text: choose among body\.$"):
            read(path)
        with pytest.raises(InputError, match=rf"column 'text' of .*{name} holds"):
            read(path, json_key="body", split_key="text")


def test_a_column_of_nulls_is_counted(tmp_path: Path) -> None:
    for path in write(tmp_path, [pyarrow.nulls(3), WORDS[:3]], ["text", "body"]):
        with pytest.raises(InputError, match="no document could be used of 3 in the input: 3 wrong type"):
            read(path)


def test_names_that_come_twice_or_hold_dots(tmp_path: Path) -> None:
    for path in write(tmp_path, [WORDS, WORDS], ["text", "text"]):
        with pytest.raises(InputError, match=rf"{path.name} has 2 columns 'text': rename all but one"):
            read(path)
        with pytest.raises(InputError, match="no column 'body': choose among text, text"):
            read(path, json_key="body")
    others = [WORDS, pyarrow.array([1, 2, 3, 4]), pyarrow.array(["x"] * 4), pyarrow.array([{"text": 1}] * 4)]
    for path in write(tmp_path, others, ["m.text", "other", "other", "m"]):
        assert [d.text for d in read(path, json_key="m.text")[0]] == ["words", "本文", "words"]
    for path in write(tmp_path, [], []):
        with pytest.raises(InputError, match="no column 'text': nor any other"):
            read(path)


def test_a_second_stream_behind_the_first_is_not_passed_over(tmp_path: Path) -> None:
    path = write(tmp_path, [WORDS], ["text"])[-1]
    path.write_bytes(path.read_bytes() * 2)
    with pytest.raises(InputError, match=r"a\.arrow is damaged \(something else stands behind its end\)"):
        read(path)
    path.write_bytes(b"FEA1" + bytes(100))
    with pytest.raises(InputError, match=r"a\.arrow is Feather version 1: write it again"):
        read(path)
