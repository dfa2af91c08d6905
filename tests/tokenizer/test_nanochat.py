"""nanochat's tokenizer comes in with its very ids and serves as ours do; no pickle runs anything."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import tiktoken
from hypothesis import HealthCheck, given, settings

from megatron_iberis.data.token_files.reader import TokenFile
from megatron_iberis.tokenizer import SPECIALS, TiktokenTokenizer, Tokenizer, import_nanochat

from .conftest import Command, sample_texts
from .test_lossless import NASTY, check, texts

PATTERN = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,2}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s+"
WORDS = [" t", "th", " th", " the", "he", "an", " an", " and", "た。", "ました", "です", "12", "港"]


def merges() -> dict[bytes, int]:
    """256 bytes, then each word and what it begins with."""
    found = {bytes([byte]): byte for byte in range(256)}
    for word in WORDS:
        for end in range(2, len(word.encode()) + 1):
            found.setdefault(word.encode()[:end], len(found))
    return found


def encoding(**changes: Any) -> tiktoken.Encoding:
    ranks = merges()
    specials = {name: len(ranks) + i for i, name in enumerate(SPECIALS)}
    settings = {"pat_str": PATTERN, "mergeable_ranks": ranks, "special_tokens": specials}
    return tiktoken.Encoding("rustbpe", **{**settings, **changes})


@pytest.fixture(scope="module")
def theirs() -> tiktoken.Encoding:
    return encoding()


@pytest.fixture
def file(theirs: tiktoken.Encoding, tmp_path: Path) -> Path:
    path = tmp_path / "tokenizer.pkl"
    path.write_bytes(pickle.dumps(theirs))
    return path


@pytest.fixture(scope="module")
def imported(theirs: tiktoken.Encoding, tmp_path_factory: pytest.TempPathFactory) -> TiktokenTokenizer:
    path = tmp_path_factory.mktemp("nanochat") / "tokenizer.pkl"
    path.write_bytes(pickle.dumps(theirs))
    return import_nanochat(path.parent)


quick = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@quick
@given(text=texts)
def test_ids_are_theirs_and_any_text_comes_back(
    imported: TiktokenTokenizer, theirs: tiktoken.Encoding, text: str
) -> None:
    assert imported.encode(text) == theirs.encode_ordinary(text)
    check(imported, text)


@pytest.mark.parametrize("text", NASTY, ids=lambda text: ascii(text)[:30])
def test_nasty_texts_come_back(imported: TiktokenTokenizer, text: str) -> None:
    check(imported, text)


def test_it_travels_to_the_workers_of_preprocessing(imported: TiktokenTokenizer) -> None:
    there = pickle.loads(pickle.dumps(imported))
    assert there.fingerprint == imported.fingerprint
    assert [there.encode(text) for text in NASTY] == [imported.encode(text) for text in NASTY]


@pytest.mark.parametrize("protocol", [4, 5])
def test_it_is_saved_without_a_pickle_and_loads_the_same(
    theirs: tiktoken.Encoding, protocol: int, tmp_path: Path
) -> None:
    (tmp_path / "tokenizer.pkl").write_bytes(pickle.dumps(theirs, protocol))
    imported = import_nanochat(tmp_path / "tokenizer.pkl")
    imported.save(tmp_path / "ours")
    assert sorted(p.name for p in (tmp_path / "ours").iterdir()) == ["manifest.json", "tiktoken.json"]
    loaded = Tokenizer.load(tmp_path / "ours")
    text = "".join(sample_texts())
    assert loaded.encode(text) == theirs.encode_ordinary(text)
    assert loaded.fingerprint == imported.fingerprint
    assert loaded.manifest == imported.manifest
    assert loaded.vocab_size == theirs.n_vocab
    assert loaded.bos_id == theirs.encode_single_token("<|bos|>") == loaded.vocab_size - 9
    assert loaded.specials == {name: theirs.encode_single_token(name) for name in SPECIALS}
    counts = loaded.token_bytes()
    assert counts[:256].tolist() == [1] * 256
    assert counts[-9:].tolist() == [0] * 9


def test_the_fingerprint_tells_pattern_and_merges(imported: TiktokenTokenizer, tmp_path: Path) -> None:
    ranks = merges()
    fewer = {part: i for part, i in ranks.items() if i < len(ranks) - 1}
    specials = {name: len(fewer) + i for i, name in enumerate(SPECIALS)}
    other_pattern = TiktokenTokenizer(PATTERN.replace("{1,2}", "{1,3}"), ranks, imported.specials)
    other_merges = TiktokenTokenizer(PATTERN, fewer, specials)
    assert len({t.fingerprint for t in (imported, other_pattern, other_merges)}) == 3


class Evil:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def test_a_pickle_that_would_run_something_is_refused(file: Path, tmp_path: Path) -> None:
    for content in (Evil(tmp_path / "run"), {"a": Evil(tmp_path / "run")}):
        for protocol in range(6):
            file.write_bytes(pickle.dumps(content, protocol))
            with pytest.raises(ValueError, match=r"not a tokenizer that nanochat wrote .* nothing of it was run"):
                import_nanochat(file)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "content", [b"", b"no pickle", pickle.dumps({}), pickle.dumps(Path), pickle.dumps("cl100k_base")]
)
def test_other_files_are_refused(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    with pytest.raises(ValueError, match="not a tokenizer that nanochat wrote"):
        import_nanochat(file)


def test_a_file_cut_short_or_damaged_is_refused_or_read_right(file: Path) -> None:
    whole = file.read_bytes()
    for end in range(0, len(whole), 97):
        file.write_bytes(whole[:end])
        with pytest.raises(ValueError, match="not a tokenizer that nanochat wrote"):
            import_nanochat(file)
    for position in range(0, len(whole), 41):
        file.write_bytes(whole[:position] + bytes([whole[position] ^ 0x15]) + whole[position + 1 :])
        try:
            imported = import_nanochat(file)
        except ValueError:
            continue
        assert imported.decode(imported.encode("港の the")) == "港の the"


def test_tokenizers_that_lose_text_or_lack_specials_are_refused(file: Path, tmp_path: Path) -> None:
    ranks = merges()
    cases: list[tuple[dict[str, Any], str]] = [
        ({"special_tokens": {"<|endoftext|>": len(ranks)}}, r"no special <\|bos\|>"),
        ({"pat_str": r"\p{L}+|\p{N}"}, "leaves characters out"),
        ({"special_tokens": {name: 5_000 + i for i, name in enumerate(SPECIALS)}}, "not 0, 1, 2"),
    ]
    for changes, message in cases:
        file.write_bytes(pickle.dumps(encoding(**changes)))
        with pytest.raises(ValueError, match=message):
            import_nanochat(file)
    with pytest.raises(ValueError, match=r"cannot be read \(No such file"):
        import_nanochat(tmp_path / "missing.pkl")


def test_the_commands_take_it(file: Path, tmp_path: Path, command: Command) -> None:
    text = tmp_path / "text.jsonl"
    text.write_text("".join(json.dumps({"text": t}) + "\n" for t in sample_texts()))
    assert command("import_tokenizer.py", file, "--output", "tokenizer").returncode == 0
    options = ["--tokenizer", "tokenizer", "--output-prefix", "tokens"]
    assert command("preprocess.py", "--input", text, *options).returncode == 0
    tokens = TokenFile(str(tmp_path / "tokens_text_document"))
    tokenizer = Tokenizer.load(tmp_path / "tokenizer")
    assert tokens.manifest is not None
    assert tokens.manifest["tokenizer"] == tokenizer.fingerprint
    assert tokenizer.decode(tokens.document(3)) == "<|bos|>" + sample_texts()[3]
