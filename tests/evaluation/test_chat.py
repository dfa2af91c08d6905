"""Chat tasks: letters by their likelihood, answers by their text, and ChatCORE only when all of it was run."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from megatron_iberis.errors import InputError
from megatron_iberis.evaluation.asking import Asker
from megatron_iberis.evaluation.benchmark import Measure, measure
from megatron_iberis.evaluation.chat import CHAT_CORE, ChatTask, CodeTask, check_chat_model, summarise_chat
from megatron_iberis.evaluation.journal import marked_of, marks_of
from megatron_iberis.evaluation.names import chat_benchmarks
from megatron_iberis.evaluation.questions import Answer, Letters, Likelihood, Reply
from megatron_iberis.evaluation.report import row as row_of_table
from megatron_iberis.evaluation.report import summary_lines
from megatron_iberis.inference.decoder import Decoder
from megatron_iberis.model.reference import ReferenceIberis
from megatron_iberis.sandbox import sandbox_level
from megatron_iberis.tasks import TASKS, Mark, Row
from megatron_iberis.tokenizer import Tokenizer
from megatron_iberis.tokenizer.chat import render, render_for_completion
from tests.evaluation.support import Said, turns

CHOICE = Row(turns("Is there soup?\n- no=A\n- cold, yes=B", "B"), "f:1", ("no", "cold, yes"), ("A", "B"), 1)
TEXT = Row(turns("Is there any soup left?", "There is, but it's cold."), "f:2", references=("There is.",))


def logprobs(reference: ReferenceIberis, ids: list[int], tokenizer: Tokenizer) -> torch.Tensor:
    with torch.no_grad():
        return reference(torch.tensor([ids]))[0].log_softmax(-1)


def test_a_letter_is_chosen_by_its_likelihood_at_the_prompts_last_token(
    tokenizer: Tokenizer, decoder: Decoder, reference: ReferenceIberis
) -> None:
    task = ChatTask(Said("soup", "choice", [CHOICE], 0.5), tokenizer)
    letters = [tokenizer.encode(letter)[0] for letter in "AB"]
    prompt = render_for_completion(tokenizer, CHOICE.messages[:1])
    asked = task.ask(0)
    assert asked[0] == Letters(tuple(prompt), tuple(letters))
    replies = Asker(decoder, tokenizer)([asked])[0]
    row = logprobs(reference, prompt, tokenizer)[-1]
    mark = task.mark(0, replies)
    assert mark.found == "AB"[int(row[letters].argmax())]
    assert mark.gold == "B"
    assert mark.score == float(mark.found == "B")


def test_the_right_answers_text_is_scored_beside_it(
    tokenizer: Tokenizer, decoder: Decoder, reference: ReferenceIberis
) -> None:
    for row, said in ((CHOICE, tokenizer.encode("cold, yes")), (TEXT, None)):
        task = ChatTask(Said("soup", "choice" if row.options else "generation", [row]), tokenizer)
        mark = task.mark(0, Asker(decoder, tokenizer)([task.ask(0)])[0])
        prompt = render_for_completion(tokenizer, row.messages[:1])
        whole = [*prompt, *said] if said else render(tokenizer, row.messages)[0]
        text = tokenizer.encode("cold, yes" if said else "There is, but it's cold.")
        rows = logprobs(reference, whole, tokenizer)[len(prompt) - 1 :]
        assert mark.nats == pytest.approx(-sum(rows[i, token].item() for i, token in enumerate(text)), abs=1e-3)
        assert mark.bytes == len("cold, yes" if said else "There is, but it's cold."), "the end of turn has no bytes"


def test_an_answer_is_asked_with_the_calculator_and_marked_by_the_task(tokenizer: Tokenizer) -> None:
    task = ChatTask(Said("soup", "generation", [TEXT]), tokenizer)
    question, gold = task.ask(0)
    assert question == Answer(tuple(render_for_completion(tokenizer, TEXT.messages[:1])), 512, tools=True)
    scored = Reply((-1.0,) * (len(gold.ids) - len(question.ids)))
    assert task.mark(0, [Reply(text="There is, but it's cold."), scored]).score == 1
    assert task.mark(0, [Reply(text="No."), scored]).score == 0


def test_a_letter_of_several_tokens_is_refused(tokenizer: Tokenizer) -> None:
    row = Row(CHOICE.messages, "file.jsonl:8", CHOICE.options, ("A", "long letter"), 1)
    with pytest.raises(
        InputError, match=r"file.jsonl:8: the tokenizer makes several tokens of the letter 'long letter'"
    ):
        ChatTask(Said("soup", "choice", [row]), tokenizer).ask(0)


def test_conversations_are_no_evaluation(tokenizer: Tokenizer) -> None:
    with pytest.raises(InputError, match="smoltalk is there to train on"):
        ChatTask(Said("smoltalk", "conversations", [TEXT]), tokenizer)


def test_scores_by_other_rules_stand_beside(tokenizer: Tokenizer) -> None:
    said = Said("soup", "generation", [TEXT, TEXT])
    said.other_marks = {"strict": lambda row, completion: Mark(float(completion == "No."))}  # type: ignore[attr-defined]
    task = ChatTask(said, tokenizer)
    scored = Reply((-1.0,) * (len(task.ask(0)[1].ids) - len(task.ask(0)[0].ids)))
    marks = [task.mark(i, [Reply(text=text), scored]) for i, text in enumerate(("No.", "Yes."))]
    found = measure(task, marks)
    assert (found.score, found.others) == (0, {"strict": 0.5})
    assert "the same, strict" in row_of_table(found)
    assert marked_of({**marks_of([scored], marks[0])}) == marks[0]


PROGRAM = Row(
    turns("def two():\n", "def two():\n    return 2\n"),
    "f:1",
    references=("def two():\n    return 2\n",),
    more={"question": "def two():\n", "entry_point": "two", "test": "def check(f):\n    assert f() == 2\n"},
)


def test_programs_run_in_the_sandbox_and_the_result_names_it(tokenizer: Tokenizer) -> None:
    task = CodeTask(Said("humaneval", "generation", [PROGRAM]), tokenizer, allow_weak=True)
    assert task.settings["sandbox"] == sandbox_level()
    scored = Reply((-1.0,) * (len(task.ask(0)[1].ids) - len(task.ask(0)[0].ids)))
    for text, score in (("    return 2\n", 1), ("    return 3\n", 0), ("    import sys; sys.exit(0)\n", 0)):
        assert task.mark(0, [Reply(text=text), scored]).score == score


def test_programs_are_refused_where_they_cant_be_shut_in(
    tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("megatron_iberis.sandbox.level.sandbox_level", lambda: "weak")
    with pytest.raises(InputError, match="--allow-weak-sandbox"):
        CodeTask(Said("humaneval", "generation", [PROGRAM]), tokenizer)


def measures(leave_out: str = "") -> list[Measure]:
    scores = dict(zip(CHAT_CORE, (0.40, 0.28, 0.31, 0.05, 0.05, 0.98), strict=True))
    return [Measure(n, 100, scores[n], 0.03, CHAT_CORE[n]) for n in CHAT_CORE if n != leave_out]


def test_chatcore_stands_with_and_without_spelling_bee() -> None:
    """Upstream sets a mean with it beside one without."""
    found = summarise_chat(measures())
    five = 0.15 / 0.75 + 0.03 / 0.75 + 0.06 / 0.75 + 0.05 + 0.05
    assert found["score"] == pytest.approx((five + 0.98) / 6)
    assert found["without_spellingbee"] == pytest.approx(five / 5)
    errors = 3 * 0.04**2 + 2 * 0.03**2
    assert found["without_spellingbee_standard_error"] == pytest.approx(math.sqrt(errors) / 5)
    assert len([line for line in summary_lines({"chat_core": found}) if "SpellingBee" in line]) == 1


def test_chatcore_is_not_worked_out_of_some_of_its_tasks() -> None:
    found = summarise_chat(measures("humaneval"))
    assert found == {"name": "ChatCORE", "missing": ["humaneval"]}
    assert summary_lines({"chat_core": found}) == ["ChatCORE: not worked out, these were not run: humaneval"]


def test_the_names_are_the_tasks() -> None:
    assert set(CHAT_CORE) <= set(TASKS)


def test_names_are_taken_as_they_are_written(tokenizer: Tokenizer) -> None:
    assert list(chat_benchmarks(["ARC_Easy", "spellingbee"], "", tokenizer)) == ["arc-easy", "spelling-bee"]
    assert list(chat_benchmarks(["chatcore"], "", tokenizer)) == list(CHAT_CORE)
    assert len(chat_benchmarks([], "", tokenizer)) > len(CHAT_CORE)
    with pytest.raises(InputError, match="there is no task 'smoltalk' to evaluate: choose among chatcore, arc-easy"):
        chat_benchmarks(["smoltalk"], "", tokenizer)


def test_a_file_of_questions_is_marked_by_its_answers(tokenizer: Tokenizer, tmp_path: Path) -> None:
    parts = [
        {"type": "python", "text": "1+1"},
        {"type": "python_output", "text": "2"},
        {"type": "text", "text": "two"},
    ]
    rows = [turns("Soup?", " Yes. "), turns("1 + 1?", "no"), turns("1 + 1?", parts)]
    file = tmp_path / "mine.jsonl"
    file.write_text("".join(json.dumps({"messages": row}) + "\n" for row in rows))
    openers = chat_benchmarks([f"ja={file}", "gsm8k"], "", tokenizer)
    assert list(openers) == ["gsm8k", "mine"]
    task = openers["mine"]()
    assert (len(task), task.settings["language"]) == (3, "ja")

    def score(item: int, text: str) -> float | None:
        question, gold = task.ask(item)
        assert isinstance(gold, Likelihood)
        scored = Reply((-1.0,) * (len(gold.ids) - len(question.ids)))
        return task.mark(item, [Reply(text=text), scored]).score

    assert [score(0, "Yes.\n"), score(0, "Yes"), score(2, "two"), score(2, "2two")] == [1, 0, 1, 0]
    with pytest.raises(InputError, match=r"two sets are named 'gsm8k'"):
        chat_benchmarks(["gsm8k", str(tmp_path / "gsm8k.jsonl")], "", tokenizer)


def test_a_base_model_is_no_chat_model() -> None:
    check_chat_model("chat", "run")
    with pytest.raises(InputError, match="run is a base model, which has not learned conversations"):
        check_chat_model("base", "run")
