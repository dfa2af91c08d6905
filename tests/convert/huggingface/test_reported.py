"""`iberis convert to-hf --report`: the model card of an export is its report and how the export is used."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from megatron_iberis.checkpoint.weights_only import save_weights
from megatron_iberis.cli import main
from megatron_iberis.convert.huggingface.reported import read_report
from megatron_iberis.errors import InputError
from megatron_iberis.model.reference import ReferenceIberis
from megatron_iberis.report.document import compose, write
from megatron_iberis.report.records import read_runs
from megatron_iberis.tokenizer import Tokenizer
from tests.support.reported import STEPS, events_of, measure, recipe_of, write_evaluation, write_run

SMALL = ("--model.depth=2", "--model.width=32", "--model.head_size=16", "--model.vocab_size=512")
SMALL = (*SMALL, "--model.sequence_length=64", "--train.batch_tokens=1024", "--train.device_batch=4")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A base run and its SFT; both measured."""
    root = tmp_path_factory.mktemp("runs")
    base = write_run(recipe_of("base", root / "base", None, *SMALL), events_of("base"))
    sft = write_run(recipe_of("sft", root / "sft", base, *SMALL), events_of("sft"))
    write_evaluation(base, "base", [measure("xwinograd-ja", 0.6, kind="schema", language="ja")])
    write_evaluation(sft, "chat", [measure("mmlu", 0.3)])
    write_evaluation(sft, "chat", [measure("arc-easy", 0.4)], step=4)
    return {"base": base, "sft": sft}


@pytest.fixture(scope="module")
def report(runs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    write(compose(read_runs([runs["sft"]]), "A test", {}, None), folder, None)
    return folder


@pytest.fixture(scope="module")
def checkpoints(runs: dict[str, Path], tokenizer_folders: dict[str, Path]) -> dict[str, Path]:
    """The last checkpoint of each run, with random weights."""
    found, tokenizer = {}, Tokenizer.load(tokenizer_folders["bpe"])
    for run in read_runs([runs["sft"]]):
        folder = run.folder.checkpoints / f"step-{STEPS:08d}"
        weights = ReferenceIberis(run.recipe.model).state_dict()
        save_weights(folder, run.recipe, tokenizer, weights, STEPS, "a test")
        found[run.stage] = folder
    return found


def test_the_export_s_card_is_the_report_and_how_the_model_is_used(
    checkpoints: dict[str, Path], report: Path, tmp_path: Path
) -> None:
    words = ["--input", str(checkpoints["sft"]), "--output", str(tmp_path / "hf"), "--report", str(report)]
    assert main(["convert", "to-hf", *words]) == 0
    text = (tmp_path / "hf/README.md").read_text()
    data = ModelCard(text).data
    assert data.model_name == "A test"
    assert [(each.dataset_type, each.metric_value) for each in data.eval_results] == [("mmlu", 0.3)]
    assert "AutoModelForCausalLM.from_pretrained" in text
    assert "| largest difference of logits |" in text
    assert text.count("\n# ") == 1
    assert text.index("\n## A test") < text.index("\n### Scores") < text.index("\n#### English, in conversation")
    pictures = set(re.findall(r"\]\((\w+\.png)\)", text))
    assert pictures
    for name in pictures:
        assert (tmp_path / "hf" / name).read_bytes() == (report / name).read_bytes()
    assert str(tmp_path.parent) not in text


def test_an_earlier_stage_s_card_has_that_stage_s_scores(checkpoints: dict[str, Path], report: Path) -> None:
    part = read_report(report).of(
        read_runs([checkpoints["base"].parent.parent])[0].recipe, STEPS, checkpoints["base"]
    )
    (index,) = part.front_matter["model-index"]
    assert [each["dataset"]["type"] for each in index["results"]] == ["xwinograd-ja"]


def test_scores_of_other_steps_are_not_the_checkpoint_s(checkpoints: dict[str, Path], report: Path) -> None:
    recipe = read_runs([checkpoints["sft"].parent.parent])[-1].recipe
    at = {step: read_report(report).of(recipe, step, Path("c")).front_matter for step in (4, 6)}
    assert at[4]["model-index"][0]["results"][0]["dataset"]["type"] == "arc-easy"
    assert "model-index" not in at[6]


def test_lines_in_fenced_blocks_are_no_headings(report: Path, tmp_path: Path) -> None:
    shutil.copytree(report, tmp_path / "report")
    block = "````text\n# no heading\n```\n## nor this\n````\n\n## A heading\n"
    with (tmp_path / "report/report.md").open("a") as file:
        file.write(block)
    found = read_report(tmp_path / "report")
    run = json.loads((report / "report.json").read_bytes())["runs"][-1]
    assert run["stage"] == "sft"
    recipe = recipe_of("sft", Path("x"), None, *SMALL)
    with pytest.raises(InputError, match="is of no run that the report"):
        found.of(recipe, STEPS, Path("x"))
    from megatron_iberis.convert.huggingface.reported import _one_level_down

    assert _one_level_down(block) == block.replace("## A heading", "### A heading")


def test_a_report_of_other_runs_is_refused_before_anything_is_written(
    checkpoint: Path, report: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--input", str(checkpoint), "--output", str(tmp_path / "hf"), "--report", str(report)]
    assert main(["convert", "to-hf", *words]) == 2
    said = capsys.readouterr().err
    assert f"(base up to step {STEPS}, SFT up to step {STEPS})" in said
    assert said.count("\n") == 1
    assert not (tmp_path / "hf").exists()


def test_a_folder_without_a_whole_report_is_refused(report: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no whole report \(report\.md is missing\)"):
        read_report(tmp_path)
    shutil.copytree(report, tmp_path / "cut")
    next((tmp_path / "cut").glob("*.png")).unlink()
    with pytest.raises(InputError, match=r"holds no whole report \(\w+\.png is missing\)"):
        read_report(tmp_path / "cut")
    shutil.copytree(report, tmp_path / "damaged")
    for content in ("{", '{"runs": 1}', '{"runs": [], "name": "x", "pictures": ["../x.png"]}'):
        (tmp_path / "damaged/report.json").write_text(content)
        with pytest.raises(InputError, match="is damaged"):
            read_report(tmp_path / "damaged")
