"""Our encoders give the very ids of SentencePiece's plain encode, whatever the text and the model."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sentencepiece.sentencepiece_model_pb2 import ModelProto

from megatron_iberis import _C
from megatron_iberis.tokenizer import SPECIALS, SentencePieceTokenizer

from .conftest import PARAGRAPHS, sample_texts

SENTENCES = [line for paragraph in PARAGRAPHS for line in paragraph.splitlines(keepends=True)]

# A literal U+2581 is left out: SentencePiece makes a space of it, which loses it.
characters = st.characters(exclude_categories=["Cs"], exclude_characters="\u2581")
pieces = st.one_of(
    st.text(characters, max_size=12),
    st.sampled_from(SENTENCES),
    st.sampled_from([*"\0\x1f\t\n\r 　", "  ", "\n\n", "<0x0A>", "<unk>", "<|bos|>", "12", "ー", "the", "した"]),
    st.sampled_from(SENTENCES).flatmap(lambda s: st.integers(0, len(s)).map(lambda i: s[i:])),
)
texts = st.lists(pieces, max_size=20).map("".join)
thorough = settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def plain(tokenizer: SentencePieceTokenizer, text: str) -> list[int]:
    ids: list[int] = tokenizer._sp.encode(text)
    return ids


@thorough
@given(text=texts)
@example(text="<0x0A> the <unk>")
def test_ids_are_sentencepieces(tokenizer: SentencePieceTokenizer, text: str) -> None:
    assert tokenizer.encode(text) == plain(tokenizer, text)


@pytest.mark.parametrize(
    "text",
    [
        "a" * 5_000,
        "ab" * 3_000 + " " * 3_000 + "\n" * 3_000,
        "the ferry " * 30_000,  # unigram scores beyond 100,000: SentencePiece's sums start again
        "".join(sample_texts()) * 20,
        "\U0010ffff" * 3_000 + "網" * 3_000,
    ],
    ids=["letter", "runs", "scores", "document", "unknown"],
)
def test_ids_of_long_texts_are_sentencepieces(tokenizer: SentencePieceTokenizer, text: str) -> None:
    assert tokenizer.encode(text) == plain(tokenizer, text)


def test_a_text_that_is_one_word_comes_back(tokenizer: SentencePieceTokenizer) -> None:
    text = "ー" * (3 << 20)  # longer than is merged, or weighed, in one piece
    assert tokenizer.decode(tokenizer.encode_array(text)) == text


few_letters = st.text("ab字é ", max_size=200)


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
@settings(max_examples=200, deadline=None)
@given(
    pieces=st.dictionaries(st.text("ab字é ", min_size=1, max_size=5), st.integers(-9, 3), min_size=1, max_size=60),
    texts=st.lists(few_letters, min_size=5, max_size=5),
)
def test_ids_are_sentencepieces_under_any_model(kind: str, pieces: dict[str, int], texts: list[str]) -> None:
    # Also what no training gives: equal scores, pieces whose letters or halves are no pieces. The space is always a
    # piece: else SentencePiece would spell it in the three bytes of its U+2581.
    tokenizer = SentencePieceTokenizer(model_of(kind, {" ": -5, **pieces}), {"kind": kind})
    for text in texts:
        assert tokenizer.encode(text) == plain(tokenizer, text)


def model_of(kind: str, pieces: dict[str, int]) -> bytes:
    """A SentencePiece model of these pieces and scores."""
    model = ModelProto()
    model.trainer_spec.model_type = {"unigram": 1, "bpe": 2}[kind]
    model.trainer_spec.byte_fallback = True
    model.normalizer_spec.add_dummy_prefix = False
    model.normalizer_spec.remove_extra_whitespaces = False
    model.pieces.add(piece="<unk>", type=2)
    for name in SPECIALS:
        model.pieces.add(piece=name, type=3)
    for byte in range(256):
        model.pieces.add(piece=f"<0x{byte:02X}>", type=6)
    for piece, score in pieces.items():
        model.pieces.add(piece=piece.replace(" ", "\u2581"), score=score, type=1)
    content: bytes = model.SerializeToString()
    return content


def test_damaged_vocabularies_are_refused() -> None:
    byte_ids = list(range(256))
    for encoder in (_C.BpeEncoder, _C.UnigramEncoder):
        with pytest.raises(ValueError, match="2 pieces has 1 scores"):
            encoder([b"a", b"b"], [0.0], byte_ids)
        with pytest.raises(ValueError, match="piece 1 is not UTF-8"):
            encoder([b"a", "字".encode()[:2]], [0.0, 1.0], byte_ids)
        with pytest.raises(ValueError, match="2\\^30 pieces"):
            encoder([], [], byte_ids)
