"""What answers are worth: by the functions that are there, and by a user's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from megatron_iberis.errors import InputError
from megatron_iberis.tasks.rewards import exact, load_reward, number, spelling


def test_numbers_are_compared_as_numbers() -> None:
    assert number("", "#### 1,000", "1000") == 1
    assert number("", "答えは１０００円です。", "1000") == 1
    assert number("", "999", "1000") == 0
    assert number("", "none", "1000") == 0


def test_texts_are_compared_but_for_what_stands_around_them() -> None:
    assert exact("", " cat\n", "cat") == 1
    assert exact("", "cats", "cat") == 0


def test_spelling_is_worth_the_share_of_right_characters() -> None:
    assert spelling("", "c,a,t", "c,a,t") == 1
    assert spelling("", "c,a,x", "c,a,t") == pytest.approx(4 / 5)
    assert spelling("", "c,a,t,s,s", "c,a,t") == pytest.approx(5 / 9)
    assert spelling("", "", "") == 0


def test_a_function_of_ones_own_is_found_in_the_folder_that_one_is_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = "def polite(prompt, completion, answer):\n    return 0.5\n\nnothing = 3\n"
    (tmp_path / "my_own_rewards.py").write_text(own)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", ["/nowhere", *__import__("sys").path])
    found = load_reward("my_own_rewards:polite")
    assert found is not None
    assert found("a", "b", "c") == 0.5
    assert load_reward("") is None
    assert load_reward("exact") is exact
    for name, said in (("my_own_rewards:rude", "can't be loaded"), ("my_own_rewards:nothing", "is no function")):
        with pytest.raises(InputError, match=said):
            load_reward(name)
