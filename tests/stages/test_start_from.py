"""run.start_from: a new run begins with the weights of another model, exactly, at any layout, or says why not."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from megatron_iberis.checkpoint.weights import CheckpointWeights
from megatron_iberis.checkpoint.weights_only import save_weights
from megatron_iberis.config import load_recipe
from megatron_iberis.convert.names import sizes_for_hf
from megatron_iberis.model.reference import ReferenceIberis
from megatron_iberis.stages.inputs import open_inputs
from megatron_iberis.tokenizer import Tokenizer, train
from tests.conftest import Corpus
from tests.stages.test_refusals import refused
from tests.support.ranks import Ranks
from tests.support.runs import checkpoint_tensors, log, pretrain, words

FP32 = {"train__dtype": "fp32", "parallel__zero_stage": "1", "evaluation__sample_every": "0"}
SHORT = {**FP32, "train__steps": "2", "evaluation__every": "0", "checkpoint__every": "0"}
LAST = Path("checkpoints") / "step-00000010"


@pytest.fixture(scope="module")
def source(one_rank: Ranks, corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run."""
    folder = tmp_path_factory.mktemp("source") / "run"
    assert one_rank(pretrain, words(corpus, folder, **FP32)) == [0]
    return folder


@pytest.fixture
def weights(source: Path, tmp_path: Path) -> Path:
    """Its weights alone."""
    found = CheckpointWeights(source / LAST)
    folder = tmp_path / "weights"
    save_weights(folder, found.recipe, Tokenizer.load(found.tokenizer), found.weights, 10, "a test")
    return folder


@pytest.fixture
def export(source: Path, tmp_path: Path) -> Path:
    """Its weights as an export to Hugging Face has them."""
    found = CheckpointWeights(source / LAST)
    folder = tmp_path / "export"
    shutil.copytree(found.tokenizer, folder / "tokenizer")
    save_file(dict(found.weights), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({**sizes_for_hf(found.recipe.model), "training_steps": 10}))
    return folder


def notes(folder: Path) -> list[str]:
    return [entry["text"] for entry in log(folder, "note")]


def test_first_losses_are_those_of_the_source_at_any_layout(
    one_rank: Ranks, two_ranks: Ranks, source: Path, tmp_path: Path, corpus: Corpus
) -> None:
    """On the text to train on beside the plain model with these weights, on held-out text as the source told it."""
    settings = {**FP32, "train__steps": "2", "run__start_from": str(source)}
    layouts = {"one": {}, "tp2": {"parallel__tp": "2"}, "zero3": {"parallel__zero_stage": "3"}}
    losses = {}
    for name, layout in layouts.items():
        ranks = one_rank if name == "one" else two_ranks
        run = tmp_path / name
        assert ranks(pretrain, words(corpus, run, **{**settings, **layout})) == [0] * ranks.size
        assert notes(run)[0] == f"weights from {source / LAST}, step 10"
        losses[name] = [log(run, "validation")[0]["bits_per_byte"], *(step["loss"] for step in log(run, "step"))]
        assert load_recipe(run / "recipe.toml").run.start_from == str(source / LAST)
    told = log(source, "validation")[-1]["bits_per_byte"]
    assert losses["one"][0] == pytest.approx(told, abs=1e-6)
    assert losses["one"][1] == pytest.approx(first_loss(source, words(corpus, tmp_path / "x", **FP32)), abs=5e-6)
    for name in layouts:
        assert losses[name] == pytest.approx(losses["one"], abs=5e-6)


def first_loss(source: Path, overrides: list[str]) -> float:
    """The source's mean loss on the rows of a run's first step, by the plain model."""
    recipe = load_recipe("demo", overrides)
    model = ReferenceIberis(recipe.model)
    model.load_state_dict(dict(CheckpointWeights(source / LAST).weights))
    rows = open_inputs(recipe).train.read(0, recipe.train.batch_tokens // recipe.model.sequence_length)
    tokens, targets = torch.from_numpy(rows.tokens), torch.from_numpy(rows.targets)
    with torch.no_grad():
        return float(model(tokens, targets) / (targets >= 0).sum())


def test_bf16_masters_start_from_every_bit_and_the_optimizer_from_nothing(
    one_rank: Ranks, weights: Path, source: Path, tmp_path: Path, corpus: Corpus
) -> None:
    """With no learning rate nothing moves: what is saved is what it began with."""
    still = {f"optimizer__{name}_lr": "0" for name in ("matrix", "embedding", "unembedding")}
    settings = {**SHORT, **still, "train__dtype": "bf16", "train__steps": "1", "run__start_from": str(weights)}
    assert one_rank(pretrain, words(corpus, tmp_path / "run", **settings)) == [0]
    found = checkpoint_tensors(tmp_path / "run" / "checkpoints" / "step-00000001")
    wanted = CheckpointWeights(source / LAST).weights
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    assert notes(tmp_path / "run")[0] == f"weights from {weights}, step 10"
    state = json.loads((tmp_path / "run" / "checkpoints" / "step-00000001" / "state.json").read_text())
    assert (state["step"], state["optimizer_step"]) == (1, 1)


def test_a_resumed_run_keeps_its_own_weights_and_says_where_it_began(
    one_rank: Ranks, weights: Path, tmp_path: Path, corpus: Corpus
) -> None:
    run = tmp_path / "run"
    settings = {**SHORT, "run__start_from": str(weights), "checkpoint__every": "1"}
    assert one_rank(pretrain, words(corpus, run, **settings)) == [0]
    whole = checkpoint_tensors(run / "checkpoints" / "step-00000002")
    shutil.rmtree(run / "checkpoints" / "step-00000002")
    shutil.rmtree(weights)  # nobody needs it any more
    (run / "checkpoints" / "latest").write_text("step-00000001\n")
    assert one_rank(pretrain, words(corpus, run, run__resume="true", **settings)) == [0]
    again = checkpoint_tensors(run / "checkpoints" / "step-00000002")
    assert all(torch.equal(again[name], whole[name]) for name in whole)
    assert load_recipe(run / "recipe.toml").run.start_from == str(weights)
    assert sum(note.startswith("weights from") for note in notes(run)) == 1


def test_the_newest_whole_checkpoint_of_a_run_is_taken(
    one_rank: Ranks, source: Path, tmp_path: Path, corpus: Corpus
) -> None:
    copy = Path(shutil.copytree(source, tmp_path / "copy"))
    (copy / LAST / "rng.safetensors").unlink()
    assert one_rank(pretrain, words(corpus, tmp_path / "run", **SHORT, run__start_from=str(copy))) == [0]
    said = notes(tmp_path / "run")
    assert said[0] == f"{copy / LAST / 'rng.safetensors'} is missing: step-00000005 is used instead"
    assert said[1] == f"weights from {copy / 'checkpoints' / 'step-00000005'}, step 5"


def test_an_export_is_started_from_as_it_is(
    two_ranks: Ranks, source: Path, export: Path, tmp_path: Path, corpus: Corpus
) -> None:
    settings = {**SHORT, "train__steps": "1", "parallel__tp": "2"}
    for name, start in (("export", export), ("checkpoint", source / LAST)):
        assert two_ranks(pretrain, words(corpus, tmp_path / name, **settings, run__start_from=str(start))) == [0, 0]
    assert notes(tmp_path / "export")[0] == f"weights from {export}, step 10"
    after = [checkpoint_tensors(tmp_path / n / "checkpoints" / "step-00000001") for n in ("export", "checkpoint")]
    assert all(torch.equal(after[0][name], after[1][name]) for name in after[1])


def test_a_row_may_have_another_length(one_rank: Ranks, weights: Path, tmp_path: Path, corpus: Corpus) -> None:
    longer = {**SHORT, "run__start_from": str(weights), "model__sequence_length": "64"}
    assert one_rank(pretrain, words(corpus, tmp_path / "run", **longer)) == [0]


def test_a_flipped_bit_is_refused_on_every_rank(
    two_ranks: Ranks, weights: Path, tmp_path: Path, corpus: Corpus
) -> None:
    path = weights / "model-00000.safetensors"
    content = bytearray(path.read_bytes())
    content[-100] ^= 4
    path.write_bytes(content)
    overrides = words(corpus, tmp_path / "run", **SHORT, run__start_from=str(weights))
    said = two_ranks(what_it_says, overrides)
    assert said == [f"{path} does not have the checksum that it was written with: give another --run.start_from."] * 2
    assert not (tmp_path / "run" / "recipe.toml").exists()


def what_it_says(overrides: list[str]) -> str:
    """Runs on a rank: the sentence that the stage ends with."""
    try:
        pretrain(overrides)
    except ValueError as error:
        return str(error)
    return "nothing"


def test_a_model_that_does_not_fit_is_refused_with_every_setting_that_differs(
    weights: Path, tmp_path: Path, corpus: Corpus
) -> None:
    other = {"model__depth": "3", "model__inner_norm": "false", "run__start_from": str(weights)}
    said = refused(*words(corpus, tmp_path / "run", **SHORT, **other))
    assert f"the model in {weights} has model.depth = 2, not 3, model.inner_norm = True, not False: give " in said
    assert "--model.depth 2 --model.inner_norm true, or another --run.start_from." in said
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("kind", ["weights", "export"])
def test_what_does_not_fit_is_said_before_torch_is_imported(
    request: pytest.FixtureRequest, tmp_path: Path, corpus: Corpus, kind: str
) -> None:
    folder: Path = request.getfixturevalue(kind)
    overrides = words(corpus, tmp_path / "run", **SHORT, model__heads="2", run__start_from=str(folder))
    code = (
        f"import sys; sys.argv = ['x', *{overrides!r}]\n"
        "from megatron_iberis.stages.launch import launch\n"
        "try: launch('pretrain', 'demo')\n"
        "except SystemExit as end: sys.exit(0 if end.code == 2 and 'torch' not in sys.modules else 1)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "has model.heads = 4, not 2, model.kv_heads = 4, not 2: give --model.heads 4" in done.stderr


def test_another_tokenizer_is_refused(weights: Path, tmp_path: Path, corpus: Corpus) -> None:
    train(["another text, " * 50, "with other pieces in it " * 50], 275, tmp_path / "other")
    shutil.rmtree(weights / "tokenizer")
    (tmp_path / "other").rename(weights / "tokenizer")
    (weights / "manifest.json").write_text('{"files": {}}')
    said = refused(*words(corpus, tmp_path / "run", **SHORT, run__start_from=str(weights)))
    assert f"the model in {weights} has another tokenizer than {corpus.tokenizer}" in said
    assert f"--data.tokenizer {weights / 'tokenizer'}" in said


def test_a_folder_without_a_model_is_refused(tmp_path: Path, weights: Path, corpus: Corpus) -> None:
    said = refused(*words(corpus, tmp_path / "run", **SHORT, run__start_from=str(tmp_path / "nothing")))
    assert f"there is no model in run.start_from = {tmp_path / 'nothing'}: give a run's folder" in said
    (weights / "model-00000.safetensors").unlink()
    said = refused(*words(corpus, tmp_path / "run", **SHORT, run__start_from=str(weights)))
    assert f"{weights / 'model-00000.safetensors'} is missing: give another --run.start_from." in said


def test_weights_in_the_place_of_a_runs_checkpoint_are_not_resumed(
    one_rank: Ranks, weights: Path, tmp_path: Path, corpus: Corpus
) -> None:
    placed = tmp_path / "run" / "checkpoints" / "step-00000001"
    shutil.copytree(weights, placed)
    overrides = words(corpus, tmp_path / "run", **SHORT, run__resume="true")
    (said,) = one_rank(what_it_says, overrides)
    assert said.startswith(f"{placed} holds weights and nothing of a training that could be resumed: start a new run")
    assert f"--run.start_from {placed} and another --run.folder" in said


def test_weights_are_no_run_to_resume(weights: Path, tmp_path: Path, corpus: Corpus) -> None:
    before = sorted(path.name for path in weights.iterdir())
    said = refused(*words(corpus, weights, **SHORT), "--run.resume")
    assert f"{weights} is a checkpoint, not the folder of a run" in said
    assert f"--run.start_from {weights} and another --run.folder" in said
    assert sorted(path.name for path in weights.iterdir()) == before
