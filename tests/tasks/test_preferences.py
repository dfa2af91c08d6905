"""Pairs of answers are read from a file as they are written there, and what is wrong with one names its line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from megatron_iberis.errors import InputError
from megatron_iberis.tasks.preferences import open_preferences

GOOD = {"prompt": "2 + 2?", "chosen": "4", "rejected": "22"}
ASKED = {"role": "user", "content": "2 + 2?"}
THREE = [ASKED, {"role": "assistant", "content": "4"}, {"role": "user", "content": "Sure?"}]


def written(folder: Path, *rows: Any) -> Path:
    path = folder / "pairs.jsonl"
    lines = (row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def said(content: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content}


def test_texts_and_messages_mean_the_same(tmp_path: Path) -> None:
    messages = {"prompt": [ASKED], "chosen": [said("4")], "rejected": [said("22")]}
    with_prompt = {"prompt": "2 + 2?", "chosen": [ASKED, said("4")], "rejected": [ASKED, said("22")]}
    found = list(open_preferences(written(tmp_path, GOOD, messages, "", with_prompt)))
    assert [(each.prompt, each.chosen, each.rejected) for each in found] == [((ASKED,), "4", "22")] * 3
    assert [each.where.rpartition(":")[2] for each in found] == ["1", "2", "4"]


def test_turns_system_messages_and_parts_stay_as_they_are(tmp_path: Path) -> None:
    prompt = [{"role": "system", "content": "Be brief."}, *THREE]
    parts = [{"type": "python", "text": "2+2"}, {"type": "python_output", "text": "4"}, {"type": "text", "text": "4"}]
    row = {"prompt": prompt, "chosen": [said(parts)], "rejected": parts[2:]}
    (found,) = open_preferences(written(tmp_path, row))
    assert (found.prompt, found.chosen, found.rejected) == (tuple(prompt), parts, parts[2:])


WRONG = {
    "no prompt": ({"chosen": "4", "rejected": "22"}, "has no 'prompt'"),
    "no chosen": ({"prompt": "2 + 2?", "rejected": "22"}, "has no 'chosen'"),
    "a list": (["2 + 2?", "4", "22"], "must be an object with 'prompt', not a list"),
    "no JSON": ("{", "not JSON"),
    "a number": ({**GOOD, "rejected": 22}, "in 'rejected', message 2 (assistant) has no content"),
    "an empty prompt": ({**GOOD, "prompt": []}, "there is no user message"),
    "a prompt that is a number": ({**GOOD, "prompt": 2}, "in 'prompt', messages must be a list"),
    "an answered prompt": ({**GOOD, "prompt": THREE[:2]}, "has a 'prompt' whose last message is not a user's"),
    "roles out of order": ({**GOOD, "prompt": [said("4"), ASKED]}, "in 'prompt', message 1 (assistant) begins"),
    "an unknown role": ({**GOOD, "prompt": [{"role": "human", "content": "2 + 2?"}]}, "the role 'human'"),
    "a user's answer": ({**GOOD, "chosen": [ASKED]}, "has a 'chosen' that is not one assistant's message"),
    "several turns": ({**GOOD, "chosen": [said("4"), ASKED, said("4")]}, "has a 'chosen' that is not one"),
    "another prompt": ({**GOOD, "rejected": [THREE[2], said("22")]}, "has a 'rejected' that is not one"),
    "an unknown part": ({**GOOD, "chosen": [{"type": "image", "text": "4"}]}, "a part of type 'image'"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_what_is_wrong_with_a_pair_names_its_file_and_line(tmp_path: Path, kind: str) -> None:
    row, complaint = WRONG[kind]
    path = written(tmp_path, GOOD, "", row)
    with pytest.raises(InputError) as caught:
        list(open_preferences(path))
    assert str(caught.value).startswith(f"{path}:3: ")
    assert complaint in str(caught.value)


def test_another_encoding_an_empty_file_and_none_are_one_sentence(tmp_path: Path) -> None:
    path = written(tmp_path, GOOD)
    path.write_bytes(path.read_text().replace("4", "四").encode("shift_jis"))
    with pytest.raises(InputError, match=r"pairs.jsonl:1: .*UTF-8"):
        list(open_preferences(path))
    path.write_text("\n")
    with pytest.raises(InputError, match=r"pairs.jsonl is empty"):
        open_preferences(path)
    with pytest.raises(InputError, match=r"nothing.jsonl is not there"):
        open_preferences(tmp_path / "nothing.jsonl")
