"""Every text comes back exactly, its bytes are counted exactly, and no text makes a special."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from megatron_iberis.tokenizer import SPECIALS, Tokenizer

from .conftest import VOCAB_SIZE

NASTY = [
    "",
    " ",
    "   leading and trailing   ",
    "a  b   c        d",
    "\t\ttabs\tand \t spaces\t",
    "\n",
    "\n\n\nlines\n\n \n  \n",
    "windows\r\nlines\r\r\n",
    "NUL \0 and \0\0, bell \a, unit separator \x1f, delete \x7f",
    "ひらがな、カタカナ、漢字、ﾊﾝｶｸ、〇々〆ヶ。",
    "　全角の空白　　で始まる",
    "が" + "か\u3099" + "が",  # composed and decomposed: they must not be merged
    "e\u0301 \u0301 a\u0308\u0304",
    "👩‍👩‍👧‍👦 🇯🇵 ✊🏽 🀄",
    "\u200b\u200d\ufeff\u2028\u2029\u00a0",
    "\u2581",
    "a\u2581b \u2581\u2581 \u2581c",
    "\u2585 \u2047 \ufffd \ufffe \uffff \ufdd0 \U0001ffff \U0010ffff",
    "".join(SPECIALS),
    "<0x0A><0x00> <unk> <s> </s> <pad> ▁<|bos|>▁",
    "123456789012345 3.14159 ２０２４年１２月 1,000,000",
    "𠮷野家 𝒳 \U000e0100",
    "a" * 70_000,
    "長い行" * 30_000,
    " " * 70_000 + "\n" * 70_000,
]

# Plain `st.text()` rarely hits what is special to the tokenizer: mix it in.
pieces = st.one_of(
    st.text(max_size=12),
    st.sampled_from(
        [*SPECIALS, *"\u2581\u2585\0\x1f\t\n\r ", "  ", "\n\n", "<0x0A>", "<unk>", "12", "ー", "東京", "the"]
    ),
    st.text(alphabet=st.characters(min_codepoint=0x3040, max_codepoint=0x30FF), max_size=8),
)
texts = st.lists(pieces, max_size=12).map("".join)
thorough = settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def check(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert tokenizer.decode_bytes(ids) == text.encode()
    assert tokenizer.token_bytes()[ids].sum() == len(text.encode())
    assert not set(ids) & set(tokenizer.specials.values())
    assert tokenizer.encode_array(text).tolist() == ids


@pytest.mark.parametrize("text", NASTY, ids=lambda text: ascii(text)[:30])
def test_nasty_texts_come_back(tokenizer: Tokenizer, text: str) -> None:
    check(tokenizer, text)


@thorough
@given(text=texts)
def test_any_text_comes_back(tokenizer: Tokenizer, text: str) -> None:
    check(tokenizer, text)


@given(ids=st.lists(st.integers(0, VOCAB_SIZE - 1), max_size=30))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_ids_decode(tokenizer: Tokenizer, ids: list[int]) -> None:
    text = tokenizer.decode(ids)
    assert text == tokenizer.decode_bytes(ids).decode(errors="replace")
    assert text == tokenizer.decode(np.array(ids, dtype=np.uint16))


@pytest.mark.parametrize("text", ["\ud800", "a\udfffb", "後ろ\udc80"])
def test_a_lone_surrogate_is_refused(tokenizer: Tokenizer, text: str) -> None:
    with pytest.raises(ValueError, match="lone surrogate"):
        tokenizer.encode(text)


def test_specials_are_spelled_out_and_bad_bytes_replaced(tokenizer: Tokenizer) -> None:
    first_byte_of_a_kanji = tokenizer.encode("\u2581")[0]
    ids = [tokenizer.bos_id, *tokenizer.encode("hi"), first_byte_of_a_kanji, tokenizer.specials["<|user_end|>"]]
    assert tokenizer.decode(ids) == "<|bos|>hi\ufffd<|user_end|>"


@pytest.mark.parametrize("bad", [-1, VOCAB_SIZE, 65_535])
def test_an_id_outside_the_vocabulary_is_refused(tokenizer: Tokenizer, bad: int) -> None:
    with pytest.raises(ValueError, match=f"id {bad} is outside"):
        tokenizer.decode([5, bad])


def test_each_special_has_an_id_of_its_own_and_no_bytes(tokenizer: Tokenizer) -> None:
    assert list(tokenizer.specials) == list(SPECIALS)
    assert len(set(tokenizer.specials.values())) == 9
    counts = tokenizer.token_bytes()
    assert counts.dtype == np.int32
    assert counts.shape == (tokenizer.vocab_size,)
    assert not counts[list(tokenizer.specials.values())].any()
    assert (counts > 0).sum() == tokenizer.vocab_size - 10  # all but the specials and <unk>
