"""Japanese tasks asked as texts that go on, and the mean of those that say something."""

from __future__ import annotations

import pytest

from megatron_iberis.evaluation.benchmark import Measure
from megatron_iberis.evaluation.japanese import ShortAnswer, TextChoice, Winograd, open_japanese, summarise_japanese
from megatron_iberis.evaluation.questions import Answer, Likelihood, Reply
from megatron_iberis.evaluation.report import summary_lines
from megatron_iberis.tasks import TASKS, Mark, Row
from megatron_iberis.tokenizer import Tokenizer
from tests.evaluation.support import Said, turns


def choice(number: int) -> Row:
    options = ("豆腐", "豆腐と大根", "猫")
    return Row(
        turns("?", "A"), f"f:{number}", options, ("A", "B", "C"), number % 3, more={"question": f"{number}番の店は？"}
    )


def test_options_are_scored_by_their_text_after_the_question(tokenizer: Tokenizer) -> None:
    task = TextChoice(Said("jcommonsenseqa", "choice", [choice(i) for i in range(7)], 0.2), tokenizer)
    questions = task.ask(2)
    texts = [tokenizer.decode(question.ids[1:]) for question in questions]
    for text, option in zip(texts, choice(2).options, strict=True):
        assert text.endswith(f"\n\n質問：2番の店は？\n回答：{option}")
        assert text.count("質問：") == 5, "four examples"
        assert text.count("2番の店") == 1, "the item is none of its examples"
    for question in questions:
        assert isinstance(question, Likelihood)
        assert question.start < len(question.ids)
    # all tokens together, not their mean: an option is no likelier for being longer
    replies = [Reply((-3.0,)), Reply((-2.0, -2.0)), Reply((-1.0, -1.0, -0.5))]
    assert task.mark(2, replies).found == "猫"
    assert task.mark(2, replies).score == 1


def test_a_pronoun_is_resolved_by_the_rest_of_the_sentence(tokenizer: Tokenizer) -> None:
    more = {"question": "", "before": "祖母は店で", "after": "に声をかけた。"}
    row = Row(turns("?", "A"), "f:1", ("猫", "祖母"), ("A", "B"), 0, more=more)
    task = Winograd(Said("xwinograd-ja", "choice", [row], 0.5), tokenizer)
    questions = task.ask(0)
    for question, option in zip(questions, row.options, strict=True):
        assert tokenizer.decode(question.ids[1:]) == f"祖母は店で{option}に声をかけた。"
        assert isinstance(question, Likelihood)
        assert "をかけた。".endswith(tokenizer.decode(question.ids[question.start :])[-5:])
    assert task.mark(0, [Reply((-1.0,)), Reply((-2.0,))]).score == 1
    assert task.mark(0, [Reply((-2.0,)), Reply((-1.0,))]).score == 0


class Overlap(Said):
    """Half a point for anything that is said, a tenth for nothing."""

    def mark(self, row: Row, completion: str) -> Mark:
        return Mark(1.0 if completion in row.references else 0.5 if completion else 0.1, completion)


def test_a_short_answer_is_one_line_and_its_chance_is_an_empty_ones(tokenizer: Tokenizer) -> None:
    rows = [
        Row(
            turns("?", "豆腐"),
            f"f:{i}",
            references=("豆腐",),
            more={"question": f"{i}番は？", "passage": "駅前の店。"},
        )
        for i in range(6)
    ]
    task = ShortAnswer(Overlap("jsquad", "generation", rows), tokenizer)
    assert task.chance == pytest.approx(0.1)
    answer, gold = task.ask(1)
    assert isinstance(answer, Answer)
    assert answer.stop == ("\n",)
    assert tokenizer.decode(answer.ids[1:]).endswith("文章：駅前の店。\n質問：1番は？\n回答：")
    assert tokenizer.decode(gold.ids[1:]).endswith("回答：豆腐")
    assert task.mark(1, [Reply(text=" 豆腐"), Reply((-3.0,))]).score == 1


def of(name: str, score: float, chance: float, error: float = 0.01) -> Measure:
    kinds = {"jcommonsenseqa": "answer text", "xwinograd-ja": "schema"}
    return Measure(name, 1000, score, error, chance, settings={"kind": kinds.get(name, "short answer")})


CHOICES = [of("jcommonsenseqa", 0.36, 0.2), of("xwinograd-ja", 0.6, 0.5)]


def test_the_mean_has_short_answers_only_where_they_beat_an_empty_one() -> None:
    both = summarise_japanese([*CHOICES, of("jsquad", 0.3, 0.0), of("niilc", 0.2, 0.0)])
    assert both["score"] == pytest.approx((0.2 + 0.2 + 0.3 + 0.2) / 4)
    assert both["left_out"] == []
    one = summarise_japanese([*CHOICES, of("jsquad", 0.3, 0.0), of("niilc", 0.019, 0.0)])
    assert one["score"] == pytest.approx((0.2 + 0.2 + 0.3) / 3)
    assert one["left_out"] == ["niilc"]
    assert "  left out, not above an empty answer: niilc" in summary_lines({"japanese": one})


def test_the_mean_needs_all_of_its_tasks_in_the_form_of_texts() -> None:
    assert summarise_japanese(CHOICES) == {"name": "JA mean", "missing": ["jsquad", "niilc"]}
    chat = Measure("jcommonsenseqa", 10, 0.3, 0.1, 0.2, settings={"kind": "choice"})
    assert summarise_japanese([chat]) == {}


def test_the_names_are_the_tasks(tokenizer: Tokenizer) -> None:
    assert set(open_japanese("", tokenizer)) <= set(TASKS)
