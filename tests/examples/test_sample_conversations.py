"""The demo's conversations, questions and pairs of answers: right, and held-out ones are no others."""

import json
import re
from collections import Counter

from examples.sample.conversations import QUESTIONS, write_conversations
from examples.sample.preferences import write_preferences
from megatron_iberis.tasks.preferences import open_preferences
from megatron_iberis.tokenizer.chat import check_messages


def test_conversations_are_right_and_the_same_for_a_seed(tmp_path):
    for folder in ("first", "second"):
        write_conversations(tmp_path / folder)
    for language in ("en", "ja"):
        content = (tmp_path / "first" / f"{language}.jsonl").read_bytes()
        assert content == (tmp_path / "second" / f"{language}.jsonl").read_bytes()
        asked = Counter()
        for line in content.decode().splitlines():
            messages = json.loads(line)["messages"]
            check_messages(messages)
            for question, answer in zip(messages[::2], messages[1::2], strict=True):
                asked[question["content"]] += 1
                check_answer(question["content"], answer["content"])
        assert len(asked) > 800
        questions = {}
        for line in (tmp_path / "first" / f"questions-{language}.jsonl").read_text().splitlines():
            question, answer = json.loads(line)["messages"]
            questions[question["content"]] = answer["content"]
            check_answer(question["content"], answer["content"])
        assert len(questions) == QUESTIONS
        assert not questions.keys() & asked.keys(), "no conversation holds them"


def test_pairs_are_a_right_and_a_wrong_answer_and_held_out_prompts_are_no_others(tmp_path):
    for folder in ("first", "second"):
        assert write_preferences(tmp_path / folder) == {"train": 1200, "val": 240}
    found = {}
    for name in ("train", "val"):
        path = tmp_path / "first" / f"{name}.jsonl"
        assert path.read_bytes() == (tmp_path / "second" / f"{name}.jsonl").read_bytes()
        found[name] = list(open_preferences(path))
        for each in found[name]:
            assert each.chosen != each.rejected
            check_answer(each.prompt[0]["content"], each.chosen)
    prompts = {name: {each.prompt[0]["content"] for each in pairs} for name, pairs in found.items()}
    assert not prompts["train"] & prompts["val"]


def check_answer(question, answer):
    numbers = re.findall(r"\d+", question)
    if match := re.fullmatch(
        r"(?:What is|How much is|Add) (\d+) (?:plus|and) (\d+)[?.]|(\d+)たす(\d+)は.*", question
    ):
        a, b = (int(number) for number in match.groups() if number)
        assert re.findall(r"\d+", answer)[-1] == str(a + b)
    elif "times" in question or "かける" in question:
        assert str(int(numbers[0]) * int(numbers[1])) in answer[-1]["text"]
    elif question.startswith("How many"):
        letter, word = re.fullmatch(r"How many (.) are in (\w+)\?", question).groups()
        assert str(word.count(letter)) in answer[-1]["text"]
