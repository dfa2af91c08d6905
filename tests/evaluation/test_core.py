"""CORE: the prompts, the draws and the marks are nanochat's, and there is a number wherever it had none."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path

import pytest
import torch

from megatron_iberis.errors import InputError
from megatron_iberis.evaluation.asking import Asker
from megatron_iberis.evaluation.benchmark import Measure, measure
from megatron_iberis.evaluation.core import CoreTask, open_core, summarise_core
from megatron_iberis.evaluation.questions import Likelihood, Reply
from megatron_iberis.inference.decoder import Decoder
from megatron_iberis.model.reference import ReferenceIberis
from megatron_iberis.tokenizer import Tokenizer
from tests.evaluation.support import CHOICES, CONTINUATIONS, PREFIXES, SCHEMAS, write_bundle


def shuffled(rows: list[dict]) -> list[dict]:
    rows = list(rows)
    random.Random(1337).shuffle(rows)
    return rows


def examples(rows: list[dict], index: int, count: int) -> list[dict]:
    return [rows[i] for i in random.Random(1234 + index).sample([i for i in range(len(rows)) if i != index], count)]


def opened(bundle: Path, name: str, tokenizer: Tokenizer, limit: int = 0) -> CoreTask:
    return open_core(str(bundle), tokenizer, limit)[name]()


def losses(reference: ReferenceIberis, ids: tuple[int, ...], tokenizer: Tokenizer) -> list[float]:
    """Of ids[1:]."""
    with torch.no_grad():
        rows = reference(torch.tensor([ids]))[0][:-1].log_softmax(-1)
    return (-rows.gather(1, torch.tensor(ids[1:])[:, None])[:, 0]).tolist()


def test_a_choices_prompt_has_the_drawn_examples(bundle: Path, tokenizer: Tokenizer) -> None:
    task, rows = opened(bundle, "ferry", tokenizer), shuffled(CHOICES)
    for index, row in enumerate(rows):
        before = "".join(f"{e['query']}\nAnswer: {e['choices'][e['gold']]}\n\n" for e in examples(rows, index, 2))
        for option, question in zip(row["choices"], task.ask(index), strict=True):
            text = f"{before}{row['query']}\nAnswer: {option}"
            assert question.ids == (tokenizer.bos_id, *tokenizer.encode(text))


def test_choices_are_scored_from_where_they_differ(
    bundle: Path, tokenizer: Tokenizer, decoder: Decoder, reference: ReferenceIberis
) -> None:
    task, rows = opened(bundle, "ferry", tokenizer), shuffled(CHOICES)
    items = [task.ask(index) for index in range(len(task))]
    for index, (questions, replies) in enumerate(zip(items, Asker(decoder, tokenizer)(items), strict=True)):
        sequences = [question.ids for question in questions]
        start = next(i for i in range(len(sequences[0])) if len({ids[i] for ids in sequences}) > 1)
        means = [sum(part := losses(reference, ids, tokenizer)[start - 1 :]) / len(part) for ids in sequences]
        mark = task.mark(index, replies)
        assert [-reply.mean for reply in replies] == pytest.approx(means, abs=1e-4)
        assert mark.found == rows[index]["choices"][means.index(min(means))]
        assert mark.score == float(means.index(min(means)) == rows[index]["gold"])


def test_an_option_that_begins_another_has_a_number_and_either_can_win(
    bundle: Path, tokenizer: Tokenizer, decoder: Decoder
) -> None:
    task, rows = opened(bundle, "notebook", tokenizer), shuffled(PREFIXES)
    short, long = task.ask(0)
    assert long.ids[: len(short.ids)] == short.ids, "the one is the other's beginning, in tokens"
    assert isinstance(short, Likelihood)
    assert len(short.ids) - short.start >= 1, "upstream takes a mean over no tokens here"
    replies = Asker(decoder, tokenizer)([[short, long]])[0]
    assert all(math.isfinite(reply.mean) for reply in replies)
    likely, unlikely = Reply((-1.0,)), Reply((-2.0,))
    assert task.mark(0, [likely, unlikely]).found == rows[0]["choices"][0]
    assert task.mark(0, [unlikely, likely]).found == rows[0]["choices"][1]


def test_a_schema_is_scored_by_its_common_end(bundle: Path, tokenizer: Tokenizer) -> None:
    task, rows = opened(bundle, "walnut", tokenizer), shuffled(SCHEMAS)
    for index, row in enumerate(rows):
        (example,) = examples(rows, index, 1)
        before = f"{example['context_options'][example['gold']]} {example['continuation']}\n\n"
        questions = task.ask(index)
        for context, question in zip(row["context_options"], questions, strict=True):
            assert question.ids == (tokenizer.bos_id, *tokenizer.encode(f"{before}{context} {row['continuation']}"))
            assert isinstance(question, Likelihood)
            assert tokenizer.decode(question.ids[question.start :]) in f"village {row['continuation']}"
        assert len({question.ids[question.start :] for question in questions}) == 1


def test_a_continuation_is_right_only_if_each_token_is_the_likeliest(bundle: Path, tokenizer: Tokenizer) -> None:
    task, rows = opened(bundle, "shop", tokenizer), shuffled(CONTINUATIONS)
    for index, row in enumerate(rows):
        (example,) = examples(rows, index, 1)
        before = f"{example['context'].strip()} {example['continuation']}\n\n{row['context'].strip()}"
        (question,) = task.ask(index)
        assert isinstance(question, Likelihood)
        whole = (tokenizer.bos_id, *tokenizer.encode(f"{before} {row['continuation']}"))
        assert question.ids == whole
        assert tokenizer.decode(whole[question.start :]).strip() == row["continuation"]
        assert task.mark(index, [Reply((-1.0,), greedy=True)]).score == 1
        assert task.mark(index, [Reply((-1.0,), greedy=False)]).score == 0


def test_a_piece_that_spans_the_join_is_scored(tokenizer: Tokenizer) -> None:
    text = "The ferry leaves the harbour at half past six"
    ids = tokenizer.encode(text)
    joins = [i for i in range(1, len(text)) if ids[: len(b := tokenizer.encode(text[:i]))] != b]
    assert joins, "some place lies within a piece"
    rows = [{"context": text[:i], "continuation": text[i:]} for i in joins]
    task = CoreTask("joined", rows, "language_modeling", 0, 0.0, tokenizer, delimiter="")
    for index, row in enumerate(shuffled(rows)):
        (question,) = task.ask(index)
        assert isinstance(question, Likelihood)
        assert tokenizer.decode(question.ids[question.start :]).endswith(row["continuation"])


def test_options_that_are_equal_have_a_number(tokenizer: Tokenizer, decoder: Decoder) -> None:
    rows = [{"query": "x", "choices": ["y", "y"], "gold": 0}]
    task = CoreTask("equal", rows, "multiple_choice", 0, 0.5, tokenizer)
    replies = Asker(decoder, tokenizer)([task.ask(0)])[0]
    assert task.mark(0, replies).score == 1


def test_a_limit_takes_the_first_rows_and_draws_among_them(bundle: Path, tokenizer: Tokenizer) -> None:
    task, rows = opened(bundle, "ferry", tokenizer, limit=4), shuffled(CHOICES)[:4]
    assert len(task) == 4
    drawn = examples(rows, 3, 2)
    assert tokenizer.decode(task.ask(3)[0].ids[1:]).startswith(f"{drawn[0]['query']}\nAnswer: ")
    assert len(opened(bundle, "ferry", tokenizer, limit=2)) == 2, "two rows have no two others among them"


def of(name: str, score: float, baseline: float, chance: float | None = None) -> Measure:
    chance = baseline if chance is None else chance
    return Measure(name, 100, score, 0.05, chance, settings={"baseline_v1": baseline})


def test_core_is_the_mean_of_centred_scores_by_both_sets_of_baselines() -> None:
    found = summarise_core([of("copa", 0.6, 0.5), of("commonsense_qa", 0.4, 0.2, 0.403), of("jeopardy", 0.1, 0.0)])
    assert found["name"] == "CORE v1, 3 of 22 tasks"
    assert found["v1"] == pytest.approx((0.2 + 0.25 + 0.1) / 3)
    assert found["v2"] == pytest.approx((0.2 + (0.4 - 0.403) / 0.597 + 0.1) / 3)
    assert found["v1_standard_error"] == pytest.approx(math.sqrt(0.1**2 + 0.0625**2 + 0.05**2) / 3)
    assert summarise_core([]) == {}


def test_v2s_baselines_are_chance_where_they_differ(tokenizer: Tokenizer) -> None:
    rows = [{"query": "x", "choices": ["A", "B"], "gold": 0}] * 2
    task = CoreTask("bigbench_language_identification", rows, "multiple_choice", 0, 0.091, tokenizer)
    assert (task.baseline, task.chance) == (0.091, 0.25)
    assert measure(task, [task.mark(0, [Reply((-1.0,)), Reply((-2.0,))])]).settings["baseline_v1"] == 0.091


def test_what_is_wrong_with_a_bundle_is_named(tmp_path: Path, tokenizer: Tokenizer) -> None:
    with pytest.raises(InputError, match="there is no CORE bundle"):
        open_core(str(tmp_path), tokenizer)
    folder = write_bundle(tmp_path / "b")
    path = folder / "eval_data" / "made" / "ferry.jsonl"
    path.write_text(path.read_text() + json.dumps({"query": "no choices"}) + "\n")
    with pytest.raises(InputError, match=r"ferry.jsonl:7 is no row with query, choices, gold"):
        opened(folder, "ferry", tokenizer)
    (folder / "eval_meta_data.csv").write_text("Eval Task,Random baseline\nferry,25\n")
    with pytest.raises(InputError, match="no baseline of notebook"):
        open_core(str(folder), tokenizer)
    (folder / "core.yaml").write_text("icl_tasks: 3")
    with pytest.raises(InputError, match="no list of CORE's tasks"):
        open_core(str(folder), tokenizer)
