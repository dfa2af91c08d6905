"""What is shown of an answer is never half a character, nor what may be a stop string, and is never taken back."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from megatron_iberis.errors import InputError
from megatron_iberis.inference.text import TextStream, text_of_ids
from megatron_iberis.tokenizer.chat import content_of, text_of
from tests.support.tokenizers import small_tokenizer

TOKENIZER = small_tokenizer()
SPECIALS = TOKENIZER.specials


def byte_ids(text: str | bytes) -> list[int]:
    """The ids of the single bytes."""
    single = {TOKENIZER.decode_bytes([i]): i for i in range(TOKENIZER.vocab_size) if i not in SPECIALS.values()}
    return [single[bytes([byte])] for byte in (text.encode() if isinstance(text, str) else text)]


def pushed(parts: Sequence[str | bytes], stop: Sequence[str] = ()) -> tuple[list[str], str]:
    """What can be shown after each part (one token's worth, whatever it is made of), and at the end."""
    stream = TextStream(TOKENIZER, stop)
    shown = ["".join(stream.push(token) for token in byte_ids(part)) for part in parts]
    return shown, stream.finish()


def test_a_character_is_shown_when_it_is_complete() -> None:
    east = "東".encode()
    assert pushed([east[:1], east[1:2], east[2:]]) == (["", "", "東"], "")
    assert pushed([east[:1], east[1:2], b"\xff", "京", "😀".encode()[:3]]) == (
        ["", "", "\ufffd\ufffd", "京", ""],
        "\ufffd",
    )


@pytest.mark.parametrize(
    ("parts", "stop", "shown", "end"),
    [
        (["abc", "EN", "D", "x"], ["END"], ["abc", "", "", ""], ""),
        (["abc", "EN", "O"], ["END"], ["abc", "", "ENO"], ""),
        (["abc", "EN"], ["END"], ["abc", ""], "EN"),
        (["ENDabc"], ["END"], [""], ""),
        (["E", "EN", "D"], ["END"], ["", "E", ""], ""),
        (["aab", "aac", "x"], ["aabaac"], ["", "", ""], ""),
        (["aabaa", "bc"], ["aabc"], ["aab", ""], ""),
        (["aaa", "bc"], ["aabc"], ["a", ""], ""),
        (["a終", "了b"], ["終了"], ["a", ""], ""),
        (["\n", "\nUser:", "x"], ["\nUser:", "END"], ["", "\n", ""], ""),
        (["abcd"], ["bcd", "c"], ["ab"], ""),
        (["ab", "c"], ["abcd", "b"], ["a", ""], ""),
    ],
)
def test_a_stop_string_ends_the_text_wherever_tokens_begin(
    parts: list[str], stop: list[str], shown: list[str], end: str
) -> None:
    assert pushed(parts, stop) == (shown, end)


def test_a_stop_string_is_told() -> None:
    stream = TextStream(TOKENIZER, ["終了"])
    for token in byte_ids("a終")[:-1]:
        assert "終" not in stream.push(token)
    assert not stream.stopped
    stream = TextStream(TOKENIZER, ["終了"])
    assert "".join(stream.push(token) for token in byte_ids("a終了b")) == "a"
    assert stream.stopped
    with pytest.raises(InputError, match="a stop string is empty"):
        TextStream(TOKENIZER, ["x", ""])


words = st.lists(st.sampled_from(["a", "b", "ab", "EN", "D", "東", "終", "了", "\n", "😀"]), max_size=12).map("".join)
stops = st.lists(st.sampled_from(["END", "EN", "ab", "aba", "終了", "了a", "\n\n", "😀"]), max_size=3)


@settings(max_examples=300, deadline=None)
@given(text=words, stop=stops, data=st.data())
def test_streamed_text_is_the_text_up_to_the_first_stop_string_at_any_split(
    text: str, stop: list[str], data: st.DataObject
) -> None:
    whole = byte_ids(text) if data.draw(st.booleans()) else TOKENIZER.encode(text)
    ends = [(text.find(s) + len(s), text.find(s)) for s in stop if s in text]
    wanted = text[: min(ends)[1]] if ends else text
    assert text_of_ids(TOKENIZER, whole, stop) == wanted
    stream = TextStream(TOKENIZER, stop)
    shown = ""
    for token in whole:
        shown += stream.push(token)
        assert wanted.startswith(shown)
    assert shown + stream.finish() == wanted
    assert stream.stopped == bool(ends)


@settings(max_examples=300, deadline=None)
@given(ids=st.lists(st.integers(0, TOKENIZER.vocab_size - 1), max_size=20))
def test_any_ids_have_a_text_and_it_is_that_of_the_message(ids: list[int]) -> None:
    told = text_of_ids(TOKENIZER, ids)
    assert not any(name in told for name in SPECIALS)
    kept = text_of(content_of(TOKENIZER, ids))
    # Half a character at the end is no part of a message; shown it is one U+FFFD, or one for each of its bytes.
    assert told.startswith(kept)
    assert told[len(kept) :] in ("", "\ufffd", "\ufffd\ufffd", "\ufffd\ufffd\ufffd")
    if not set(ids) & set(SPECIALS.values()):
        assert told == TOKENIZER.decode(ids)


def test_a_call_of_the_calculator_is_no_text() -> None:
    def ids(*parts: str) -> list[int]:
        return [i for part in parts for i in ([SPECIALS[part]] if part in SPECIALS else TOKENIZER.encode(part))]

    call = ("<|python_start|>", "12*3", "<|python_end|>", "<|output_start|>", "36", "<|output_end|>")
    assert text_of_ids(TOKENIZER, ids("12*3=", *call, "36!", "<|assistant_end|>")) == "12*3=36!"
    assert text_of_ids(TOKENIZER, ids("12*3=", *call[:2])) == "12*3=12*3"
    assert text_of_ids(TOKENIZER, ids("a", *call[:3], "b")) == "ab"
    assert text_of_ids(TOKENIZER, ids("E", *call, "ND"), ["END"]) == ""
