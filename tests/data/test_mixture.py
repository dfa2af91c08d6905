"""What a recipe says of its data is opened as it was meant, and refused in the user's own words."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from megatron_iberis.config import load_recipe
from megatron_iberis.data.mixture import RowLayout, open_mixture, open_validation
from megatron_iberis.data.token_files.inspection import open_token_file
from megatron_iberis.errors import InputError
from megatron_iberis.tokenizer import Tokenizer
from tests.conftest import Corpus
from tests.support.token_files import TokenFileWriter

LAYOUT = RowLayout(sequence_length=16, vocab_size=600, seed=5)


@pytest.fixture
def tokenizer(corpus: Corpus) -> Tokenizer:
    return Tokenizer.load(corpus.tokenizer)


@pytest.fixture
def place(corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Puts the training file of the corpus under a name in the current folder, an empty one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))

    def copy(name: str, source: str = corpus.train) -> None:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        for ending in (".bin", ".idx", ".json"):
            shutil.copy(source + ending, tmp_path / f"{name}{ending}")

    return copy


@pytest.mark.parametrize(
    ("files", "text", "opened"),
    [
        (["a"], "a", ["a"]),
        (["a", "b"], "0.7\ta|\t0.3  b", ["a", "b"]),
        (["2024 data/x"], "2024 data/x", ["2024 data/x"]),
        (["2024 data/x", "b"], "2024 data/x | b", ["2024 data/x", "b"]),
        (["2024 data/x"], "0.7\t2024 data/x | 0.3\t2024 data/x", ["2024 data/x", "2024 data/x"]),
        (["7"], "7", ["7"]),
        (["2 a", "a"], "./2 a", ["./2 a"]),
        (["a|b"], "a|b", ["a|b"]),
        (["home/a", "home/my b"], "1 ~/a | 2 ~/my b", ["home/a", "home/my b"]),
        (["p_text_document", "p_val_text_document"], "p", ["p_text_document"]),
        (["p_text_document"], "3 p.bin | 1 p_text_document.idx", ["p_text_document", "p_text_document"]),
        (["p", "p_text_document"], "p", ["p"]),
    ],
)
def test_a_path_is_taken_as_it_was_meant(
    place: Callable[[str], None], tmp_path: Path, tokenizer: Tokenizer, files: list[str], text: str, opened: list[str]
) -> None:
    for name in files:
        place(name)
    mixture = open_mixture(text, tokenizer, LAYOUT, 10)
    assert [Path(source.file.prefix).resolve() for source in mixture.sources] == [tmp_path / name for name in opened]
    assert mixture.read(0, 4).tokens.shape == (4, 16)
    assert mixture.locate(3)[0].file in [source.file.prefix for source in mixture.sources]


@pytest.mark.parametrize(
    ("files", "text", "said"),
    [
        ([], "nothing", "data.train = nothing: there is no nothing.idx"),
        ([], "2024 data/x", "there is neither data/x.idx nor a token file '2024 data/x'"),
        ([], "0.7\ta", "there is neither a.idx nor a token file '0.7\ta'"),
        (["2024 a", "a"], "2024 a", "write './2024 a' for the first, or rename one of them"),
        (["a"], "2 a | a", "give all of them one, or none"),
    ],
)
def test_a_refusal_names_what_the_user_wrote(
    place: Callable[[str], None], tokenizer: Tokenizer, files: list[str], text: str, said: str
) -> None:
    for name in files:
        place(name)
    with pytest.raises(InputError) as refused:
        open_mixture(text, tokenizer, LAYOUT, 10)
    assert said in str(refused.value)


def test_held_out_text_is_that_of_the_prefix_when_there_is_some(
    place: Callable[..., None], corpus: Corpus, tokenizer: Tokenizer
) -> None:
    place("p_text_document")
    assert open_validation("p", tokenizer, LAYOUT).file.prefix == "p_text_document"
    place("p_val_text_document", corpus.val)
    assert open_validation("p", tokenizer, LAYOUT).file.prefix == "p_val_text_document"
    assert open_token_file("p.idx").prefix == "p_text_document"


@pytest.mark.parametrize("packing", ["concat", "best_fit", "megatron"])
def test_every_packing_opens_and_says_what_a_user_should_know(
    corpus: Corpus, tokenizer: Tokenizer, packing: Any
) -> None:
    layout = replace(LAYOUT, packing=packing, document_mask=True)
    mixture = open_mixture(f"{corpus.train} | {corpus.val}", tokenizer, layout, 100)
    said = str(mixture)
    tokens, documents = (
        sum(getattr(source.file, name) for source in mixture.sources) for name in ("num_tokens", "num_documents")
    )
    assert said.startswith(f"{tokens:,} tokens in {documents:,} documents of 2 files")
    assert (f"; {corpus.val} packed into " in said) == (packing == "best_fit")
    rows = mixture.read(60, 40)
    assert rows.cu_seqlens is not None
    assert rows.cu_seqlens[-1] == 40 * 16
    assert {place.file for sample in range(60, 100) for place in mixture.locate(sample)} <= {corpus.train, corpus.val}


def test_a_file_of_another_tokenizer_or_too_short_is_refused(
    place: Callable[..., None], tmp_path: Path, tokenizer: Tokenizer
) -> None:
    for name, manifest, tokens, said in (
        ("other", {"tokenizer": "another"}, 50, "was made with another tokenizer"),
        ("short", None, 9, "data.train = short: "),
    ):
        with TokenFileWriter(tmp_path / name, 600) as writer:
            writer.add_document(np.arange(tokens))
            writer.finalize(manifest)
        with pytest.raises(InputError, match=said):
            open_mixture(name, tokenizer, LAYOUT, 1)


def test_home_is_expanded_where_no_shell_does_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    recipe = load_recipe("demo", ["--run.folder=~/r", "--data.tokenizer=~/t", "--data.val=~/v"])
    assert [recipe.run.folder, recipe.data.tokenizer, recipe.data.val] == [f"{tmp_path}/{name}" for name in "rtv"]
