"""Run folders as they are found: which runs, which stages, which evaluations; and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from megatron_iberis.errors import InputError
from megatron_iberis.report.records import read_log, read_runs
from tests.support.reported import STEPS, events_of, measure, recipe_of, write_evaluation, write_run


def labels(*folders: Path) -> list[str]:
    return [run.label for run in read_runs(folders)]


def test_the_runs_before_are_followed_by_what_each_began_from(runs: dict[str, Path]) -> None:
    assert labels(runs["rl"]) == ["base", "mid", "SFT", "DPO", "RL"]
    assert labels(runs["mid"], runs["sft"]) == ["base", "mid", "SFT"]


def test_runs_that_were_moved_together_are_still_followed(runs: dict[str, Path], tmp_path: Path) -> None:
    here = write_run(recipe_of("base", tmp_path / "a" / "base"), [])
    then = write_run(recipe_of("sft", tmp_path / "a" / "sft", here), [])
    shutil.move(tmp_path / "a", tmp_path / "b")
    assert labels(tmp_path / "b" / then.name) == ["base", "SFT"]


def test_a_run_whose_beginning_is_gone_stands_alone(tmp_path: Path) -> None:
    run = write_run(recipe_of("sft", tmp_path / "sft", tmp_path / "gone"), [])
    assert labels(run) == ["SFT"]


def test_two_runs_of_a_stage_are_told_apart_by_their_folders(runs: dict[str, Path], tmp_path: Path) -> None:
    other = write_run(recipe_of("sft", tmp_path / "slower", runs["mid"]), [])
    assert labels(runs["sft"], other) == ["base", "mid", "SFT (sft)", "SFT (slower)"]


def test_time_is_of_steps_and_validations_and_tokens_of_all_steps(runs: dict[str, Path]) -> None:
    (base,) = read_runs([runs["base"]])
    assert base.seconds == pytest.approx(STEPS * 0.5 + 2 * 2.0)
    assert base.tokens == STEPS * 8192
    assert base.finished


def test_of_evaluations_of_a_task_the_newest_step_and_then_the_most_items_count(tmp_path: Path) -> None:
    run = write_run(recipe_of("sft", tmp_path / "sft"), [])
    write_evaluation(run, "chat", [measure("mmlu", 0.9, 5000), measure("arc-easy", 0.9, 5000)], step=4)
    write_evaluation(run, "chat", [measure("mmlu", 0.3, 100)], step=8, name="few")
    write_evaluation(run, "chat", [measure("mmlu", 0.4, 1000)], step=8, name="many")
    write_evaluation(run, "base", [measure("mmlu", 0.5, 10)], step=8)
    found = read_runs([run])[0].evaluations
    assert (found.tasks["chat"]["mmlu"].measure.score, found.tasks["chat"]["mmlu"].step) == (0.4, 8)
    assert found.tasks["chat"]["arc-easy"].step == 4
    assert found.tasks["base"]["mmlu"].measure.n == 10


def test_a_measure_comes_back_from_a_result_as_it_was(tmp_path: Path) -> None:
    run = write_run(recipe_of("sft", tmp_path / "sft"), [])
    own = measure("humaneval", 0.1, 164, 0.0, sandbox="kernel")
    write_evaluation(run, "chat", [own])
    assert read_runs([run])[0].evaluations.tasks["chat"]["humaneval"].measure == own


def test_a_mean_is_never_of_two_steps(tmp_path: Path) -> None:
    run = write_run(recipe_of("base", tmp_path / "base"), [])
    core = {"kind": "multiple_choice", "baseline_v1": 0.25}
    write_evaluation(run, "base", [measure("a", 0.9, **core), measure("b", 0.9, **core)], step=4)
    write_evaluation(run, "base", [measure("a", 0.25, **core)], step=8)
    core_of = read_runs([run])[0].evaluations.summaries()["core"]
    assert (core_of["tasks"], core_of["v1"], core_of["step"]) == (1, 0.0, 8)


def test_a_mean_of_an_earlier_step_stays_when_other_tasks_are_newer(tmp_path: Path) -> None:
    run = write_run(recipe_of("base", tmp_path / "base"), [])
    write_evaluation(run, "base", [measure("a", 0.5, kind="multiple_choice", baseline_v1=0.25)], step=4)
    write_evaluation(run, "base", [measure("xwinograd-ja", 0.6, kind="schema", language="ja")], step=8)
    assert read_runs([run])[0].evaluations.summaries()["core"]["step"] == 4


def test_results_of_the_harness_are_found(tmp_path: Path) -> None:
    run = write_run(recipe_of("base", tmp_path / "base"), [])
    told = {
        "alias": "x",
        "acc,none": 0.5,
        "acc_stderr,none": 0.02,
        "acc_norm,none": 0.4,
        "acc_norm_stderr,none": "N/A",
    }
    (run / "harness").mkdir()
    (run / "harness/result.json").write_text(json.dumps({"results": {"piqa": told}}))
    found = read_runs([run])[0].evaluations.harness
    assert [(each.metric, each.value, each.error) for each in found] == [("acc", 0.5, 0.02), ("acc_norm", 0.4, None)]


def test_a_last_line_that_was_cut_is_left_out_and_said(tmp_path: Path) -> None:
    run = write_run(recipe_of("base", tmp_path / "base"), [])
    with (run / "log.jsonl").open("a") as log:
        log.write('{"event": "step", "st')
    found = read_log(run / "log.jsonl")
    assert found.cut
    assert len(found.steps) == STEPS


@pytest.mark.parametrize(
    "line", ['{"event": "step", "st', "[1]", '{"event": "step", "step": 1}', '{"event": "figures", "step": 1}']
)
def test_a_damaged_line_is_named_by_its_number(line: str, tmp_path: Path) -> None:
    run = write_run(recipe_of("base", tmp_path / "base"), [])
    lines = (run / "log.jsonl").read_text().splitlines()
    (run / "log.jsonl").write_text("\n".join([*lines[:3], line, *lines[3:]]) + "\n")
    with pytest.raises(InputError, match=r"line 4 of .*log\.jsonl is damaged"):
        read_runs([run])


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"there is no run in .*nothing"):
        read_runs([tmp_path / "nothing"])
    run = write_run(recipe_of("base", tmp_path / "base"), [])
    (run / "log.jsonl").unlink()
    with pytest.raises(InputError, match=r"has no log\.jsonl"):
        read_runs([run])


def test_a_run_that_is_named_twice_is_refused(runs: dict[str, Path]) -> None:
    with pytest.raises(InputError, match="named twice"):
        read_runs([runs["base"], runs["base"]])


def test_runs_of_different_models_are_refused(runs: dict[str, Path], tmp_path: Path) -> None:
    other = write_run(recipe_of("sft", tmp_path / "sft", None, "--model.width=128"), events_of("sft"))
    with pytest.raises(InputError, match=r"different models \(model\.width is 256 and 128\)"):
        read_runs([runs["base"], other])


def test_a_damaged_result_is_refused(tmp_path: Path) -> None:
    run = write_run(recipe_of("base", tmp_path / "base"), [])
    write_evaluation(run, "base", [measure("a", 0.5)])
    path = next(run.rglob("result.json"))
    for content in ('{"kind": "base", "ta', '{"kind": "base", "settings": {"step": 1}, "tasks": {"a": {"n": 1}}}'):
        path.write_text(content)
        with pytest.raises(InputError, match=r"result\.json is damaged"):
            read_runs([run])


def test_an_overlap_table_that_is_none_is_refused(tmp_path: Path) -> None:
    run = write_run(recipe_of("base", tmp_path / "base"), [])
    (run / "overlap.json").write_text('{"sets": 3}')
    with pytest.raises(InputError, match="no table of iberis data overlap"):
        read_runs([run])
