"""A run of reinforcement learning: it learns what is rewarded, and goes on as if it had not been stopped."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from megatron_iberis.config import load_recipe
from megatron_iberis.config.stage import stage_of
from megatron_iberis.errors import InputError
from megatron_iberis.rollouts.answers import Answer, Group
from megatron_iberis.stages.reinforce import passes
from megatron_iberis.stages.reinforce_inputs import open_prompts
from tests.conftest import Corpus
from tests.support.finetuning import finetune, write
from tests.support.finetuning import words as finetuning
from tests.support.ranks import Ranks
from tests.support.reinforcing import ANSWERS, guesses, prompts_file, questions, reinforce, words_for
from tests.support.runs import checkpoint_tensors, log, pretrain, stop_after
from tests.support.runs import words as pretraining


@pytest.fixture(scope="module")
def guessing(one_rank: Ranks, corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A chat model that answers the questions with any of the letters."""
    folder = tmp_path_factory.mktemp("guessing")
    short = {"train__steps": "4", "train__dtype": "fp32", "evaluation__every": "0", "evaluation__sample_every": "0"}
    assert one_rank(pretrain, pretraining(corpus, folder / "base", **short)) == [0]
    data = write(folder / "guesses.jsonl", guesses(600))
    settings = {"train__epochs": "2", "optimizer__matrix_lr": "0.05"}
    assert one_rank(finetune, finetuning(corpus, folder / "sft", folder / "base", data, **settings)) == [0]
    return folder / "sft"


@pytest.fixture(scope="module")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prompts_file(tmp_path_factory.mktemp("prompts"))


def last(folder: Path) -> Path:
    return max((folder / "checkpoints").glob("step-*"))


def figures(folder: Path, group: str) -> list[dict[str, float]]:
    return [entry["values"] for entry in log(folder, "figures") if entry["group"] == group]


def notes(folder: Path) -> list[str]:
    return [entry["text"] for entry in log(folder, "note")]


def rollouts(folder: Path) -> list[list[dict[str, object]]]:
    paths = sorted((folder / "rollouts").glob("*.jsonl"))
    return [[json.loads(line) for line in path.read_text().splitlines()] for path in paths]


@pytest.mark.full
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_reward_rises_from_guessing_to_knowing(
    one_rank: Ranks, guessing: Path, prompts: Path, tmp_path: Path, seed: int
) -> None:
    settings = {
        "train__steps": "240",
        "train__log_every": "100",
        "train__seed": str(seed),
        "optimizer__kind": "muon",
        "optimizer__matrix_lr": "0.02",
        "optimizer__lr_fraction": "0.15",  # at 0.3 it may give whole questions up: docs/decisions.md
        "tasks__val": str(prompts),
        "reinforce__val_samples": "8",
        "evaluation__every": "240",
    }
    run = tmp_path / "run"
    assert one_rank(reinforce, words_for(guessing, run, prompts, **settings)) == [0]
    first, reached = figures(run, "held_out")
    assert first["pass@1"] == first["reward"] < 0.3
    assert reached["reward"] > 0.7
    assert reached["reward"] > first["reward"] + 6 * first["reward_error"]
    assert reached["pass@8"] >= reached["pass@4"] >= reached["pass@2"] >= reached["pass@1"]
    assert reached["length"] < 3


def test_the_log_probabilities_of_answering_are_those_of_training(
    one_rank: Ranks, guessing: Path, prompts: Path, tmp_path: Path
) -> None:
    """At a temperature that is not 1; and entropy, lengths and shares are told at every step."""
    run = tmp_path / "run"
    assert one_rank(reinforce, words_for(guessing, run, prompts, reinforce__temperature="0.7")) == [0]
    for step in figures(run, "train"):
        assert step["probability_error"] < 1e-4
        assert 0 <= step["kl"] < 1e-6
        assert 0 < step["entropy"] < math.log(600)
        assert step["clipped"] == 0
    assert len(figures(run, "train")) == 3
    for step in figures(run, "answers"):
        assert set(step) == {"reward", "length", "cut", "groups", "groups_trained_on", "without_variance"}


def test_bf16_training_stays_close_to_what_was_drawn(
    one_rank: Ranks, guessing: Path, prompts: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    assert one_rank(reinforce, words_for(guessing, run, prompts, train__dtype="bf16")) == [0]
    for step in figures(run, "train"):
        assert 0 < step["probability_error"] < 0.02
        assert step["kl"] < 1e-3


def test_a_step_without_a_signal_leaves_the_weights_as_they_are_to_the_bit(
    one_rank: Ranks, guessing: Path, prompts: Path, tmp_path: Path
) -> None:
    """And momentum: with Muon's of finetuning, which would make a step of full size."""
    run = tmp_path / "run"
    never = {"reinforce__reward": "tests.support.reinforcing:never"}
    settings = {**never, "optimizer__kind": "muon", "optimizer__start": "warm"}
    assert one_rank(reinforce, words_for(guessing, run, prompts, **settings)) == [0]
    before, after = (checkpoint_tensors(path) for path in (last(guessing), last(run)))
    assert any(name.endswith(".momentum") and tensor.any() for name, tensor in after.items())
    for name, tensor in after.items():
        if "random" not in name:
            assert torch.equal(before[name], tensor), name
    assert sum("changes nothing" in note for note in notes(run)) == 3
    assert [step["groups"] for step in figures(run, "answers")] == [12] * 3  # all there are were asked
    assert [step["without_variance"] for step in figures(run, "answers")] == [1] * 3


def test_groups_without_variance_are_replaced_up_to_the_limit(
    one_rank: Ranks, guessing: Path, prompts: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    settings = {"reinforce__samples": "2", "train__batch_tokens": "512", "train__device_batch": "8"}
    assert one_rank(reinforce, words_for(guessing, run, prompts, **settings, reinforce__refill="2")) == [0]
    for step, lines in zip(figures(run, "answers"), rollouts(run), strict=True):
        assert 4 <= step["groups"] <= 8
        assert step["groups_trained_on"] <= 4
        trained = {line["prompt"] for line in lines if line["trained"]}
        assert len(trained) == step["groups_trained_on"]
        for prompt in trained:
            of_prompt = [line for line in lines if line["prompt"] == prompt]
            assert len({line["reward"] for line in of_prompt}) == 2
            assert sum(line["advantage"] for line in of_prompt) == pytest.approx(0)  # type: ignore[misc]


def test_answers_are_written_down_as_they_were_trained_on(
    one_rank: Ranks, guessing: Path, prompts: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    assert one_rank(reinforce, words_for(guessing, run, prompts, reinforce__answer_tokens="2")) == [0]
    right = {row[0]["content"]: row[1]["content"] for row in questions()}
    batches = rollouts(run)
    assert len(batches) == 3
    for line in batches[0]:
        assert len(line["ids"]) == len(line["drawn"]) <= 2  # type: ignore[arg-type]
        if line["finish"] == "length":
            assert line["reward"] == 0.0
        else:
            number = int(str(line["where"]).rpartition(":")[2])
            assert (line["text"] == list(right.values())[number - 1]) == (line["reward"] == 1.0)
    assert {line["finish"] for line in batches[0]} <= {"stop", "length"}
    assert stage_of(load_recipe(run / "recipe.toml")) == "rl"


@pytest.mark.parametrize("updates", [1, 2])
def test_a_resumed_run_is_the_same_to_the_bit_answers_included(
    one_rank: Ranks, guessing: Path, prompts: Path, tmp_path: Path, updates: int
) -> None:
    """Also in the middle of several steps on the same answers."""
    settings = {"train__steps": "4", "checkpoint__every": "1", "reinforce__updates": str(updates)}
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    assert one_rank(reinforce, words_for(guessing, whole, prompts, **settings)) == [0]
    stop_after(whole, resumed, 1)
    for path in (resumed / "rollouts").glob("*.jsonl"):
        if int(path.stem.removeprefix("batch-")) > 0:
            path.unlink()
    assert one_rank(reinforce, [*words_for(guessing, resumed, prompts, **settings), "--run.resume"]) == [0]
    expected, found = checkpoint_tensors(last(whole)), checkpoint_tensors(last(resumed))
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert rollouts(whole) == rollouts(resumed)
    if updates == 2:
        first, second = figures(whole, "train")[:2]
        assert first["probability_error"] < 1e-4  # the ratio is 1 at first
        assert second["probability_error"] > 1e-3


@pytest.mark.parametrize(("tensor", "zero"), [(1, 2), (2, 0), (2, 1), pytest.param(1, 0, marks=pytest.mark.full)])
def test_no_layout_is_seen_in_what_is_learned(
    one_rank: Ranks, two_ranks: Ranks, guessing: Path, prompts: Path, tmp_path: Path, tensor: int, zero: int
) -> None:
    """Adam's eps keeps it from making steps of rounding errors."""
    one, two = tmp_path / "one", tmp_path / "two"
    settings = {"optimizer__eps": "1e-4"}
    assert one_rank(reinforce, words_for(guessing, one, prompts, **settings)) == [0]
    settings |= {"parallel__tp": str(tensor), "parallel__zero_stage": str(zero), "train__device_batch": "12"}
    if tensor == 2:
        settings["parallel__sequence_parallel"] = "true"
    assert two_ranks(reinforce, words_for(guessing, two, prompts, **settings)) == [0, 0]
    assert figures(two, "train")[0]["entropy"] == pytest.approx(figures(one, "train")[0]["entropy"], rel=1e-5)
    expected, found = checkpoint_tensors(last(one)), checkpoint_tensors(last(two))
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-4, atol=1e-5)
    assert [line["ids"] for line in rollouts(one)[0]] == [line["ids"] for line in rollouts(two)[0]]


def test_prompts_that_are_too_hard_or_too_easy_are_left_out(one_rank: Ranks, guessing: Path, tmp_path: Path) -> None:
    hard = [[{"role": "user", "content": "the letter of river"}, {"role": "assistant", "content": "no letter"}]]
    prompts, run = write(tmp_path / "prompts.jsonl", [*questions()[:6], *hard]), tmp_path / "run"
    settings = {"reinforce__filter_samples": "32", "train__batch_tokens": "1024", "train__device_batch": "16"}
    settings["checkpoint__every"] = "1"
    assert one_rank(reinforce, words_for(guessing, run, prompts, **settings)) == [0]
    lines = [json.loads(line) for line in (run / "difficulty.jsonl").read_text().splitlines()]
    assert len(lines) == 7
    assert lines[-1]["mean"] == 0
    kept = {line["prompt"] for line in lines if 0 < line["mean"] <= 0.9}
    assert 0 < len(kept) < 7
    assert {line["prompt"] for batch in rollouts(run) for line in batch} <= kept
    copy = tmp_path / "copy"
    stop_after(run, copy, 1)
    assert one_rank(reinforce, [*words_for(guessing, copy, prompts, **settings), "--run.resume"]) == [0]
    assert rollouts(copy) == rollouts(run)
    stop_after(run, tmp_path / "gone", 1)
    (tmp_path / "gone" / "difficulty.jsonl").unlink()
    with pytest.raises(Exception, match="is gone"):
        one_rank(reinforce, [*words_for(guessing, tmp_path / "gone", prompts, **settings), "--run.resume"])


def test_pass_at_k_is_counted_without_bias() -> None:
    def group(rewards: list[float]) -> Group:
        return Group(0, (), tuple(Answer((), (), "", "stop", reward) for reward in rewards))

    found = passes([group([1, 0, 0, 0]), group([1, 1, 0, 0])])
    assert found["pass@1"] == pytest.approx((1 / 4 + 2 / 4) / 2)
    assert found["pass@2"] == pytest.approx((1 - 3 / 6 + 1 - 1 / 6) / 2)
    assert found["pass@4"] == 1


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"tasks__mixture": ""}, "tasks.mixture is empty"),
        ({"tasks__mixture": "arc-easy"}, "."),
        ({"run__start_from": ""}, "run.start_from is not set"),
        ({"reinforce__samples": "7"}, "no whole groups"),
        ({"reinforce__answer_tokens": "64"}, "leaves no room for a prompt"),
        ({"reinforce__answer_tokens": "60"}, "no prompt of at most 4 tokens"),
        ({"parallel__zero_stage": "3"}, "ZeRO stages 0 to 2"),
        ({"reinforce__reward": "nonsense"}, "number, exact, spelling"),
        ({"reinforce__reward": "no_such_module:f"}, "can't be loaded"),
        ({"reinforce__temperature": "0.1"}, "is too low"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_anything_starts(
    guessing: Path, prompts: Path, tmp_path: Path, settings: dict[str, str], said: str
) -> None:
    with pytest.raises(InputError) as refused:
        open_prompts(load_recipe("rl_demo", words_for(guessing, tmp_path / "run", prompts, **settings)))
    assert said in str(refused.value)
    assert not (tmp_path / "run").exists()


def test_a_reward_that_is_no_number_ends_the_run_with_the_answer(
    one_rank: Ranks, guessing: Path, prompts: Path, tmp_path: Path
) -> None:
    words = words_for(guessing, tmp_path / "run", prompts, reinforce__reward="tests.support.reinforcing:broken")
    with pytest.raises(Exception, match=r"is nan: mend the function that reinforce\.reward names"):
        one_rank(reinforce, words)


@pytest.mark.full
def test_the_script_runs_as_it_stands(guessing: Path, prompts: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    command = ["bash", "examples/rl.sh", *words_for(guessing, run, prompts, train__steps="2")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, done.stderr
    assert "answers after step 1:" in done.stdout
    assert "reward" in done.stdout
    assert all(len(line) <= 120 for line in done.stdout.splitlines())
    assert len(ANSWERS) == 6
    shutil.rmtree(run)
