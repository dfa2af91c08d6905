"""Mid-training and finetuning: no layout is seen in what is learned, and nothing is done in silence."""

from __future__ import annotations

import json
import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from megatron_iberis.checkpoint.verify import describe
from megatron_iberis.checkpoint.weights import CheckpointWeights
from megatron_iberis.config import load_recipe
from megatron_iberis.convert.huggingface.export import without_places
from megatron_iberis.errors import InputError
from megatron_iberis.inference.load import load_model
from megatron_iberis.model.reference import ReferenceIberis
from megatron_iberis.stages.conversation_inputs import open_conversations
from megatron_iberis.stages.inputs import open_inputs
from megatron_iberis.tokenizer import Tokenizer
from megatron_iberis.tokenizer.chat import Message, render, template_hash
from tests.conftest import Corpus
from tests.support.finetuning import conversations, finetune, recipe, said, words, write
from tests.support.ranks import Ranks
from tests.support.runs import checkpoint_tensors, log, pretrain, stop_after
from tests.support.runs import words as pretraining

CONCAT = {"data__packing": "concat", "data__document_mask": "false", "tasks__loss_on": "all"}


@pytest.fixture(scope="module")
def base(one_rank: Ranks, corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pretrained model of a few steps."""
    folder = tmp_path_factory.mktemp("base") / "run"
    short = {"train__steps": "4", "train__dtype": "fp32", "evaluation__every": "0", "evaluation__sample_every": "0"}
    assert one_rank(pretrain, pretraining(corpus, folder, **short)) == [0]
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Conversations of which some teach two tokens and some sixty."""
    return write(tmp_path_factory.mktemp("conversations") / "all.jsonl", conversations(30))


def last(folder: Path) -> Path:
    """A run's last checkpoint."""
    return max((folder / "checkpoints").glob("step-*"))


def figures(folder: Path, name: str = "loss") -> list[float]:
    return [entry[name] for entry in log(folder, "step")]


def notes(folder: Path) -> list[str]:
    return [entry["text"] for entry in log(folder, "note")]


def unpacked(base: Path, overrides: list[str], step: int = 0) -> tuple[float, float, float]:
    """Of a step's conversations by the plain model with the base's weights, each in a row of its own.

    The mean loss of all targets, the mean of the rows' means, and the gradient's norm.
    """
    inputs = open_conversations(recipe(overrides))
    model = ReferenceIberis(inputs.recipe.model)
    model.load_state_dict(dict(CheckpointWeights(last(base)).weights))
    batch = inputs.train.layout.batch
    rows = inputs.train.read(step * batch, batch)
    assert rows.starts is not None
    whole, means, count = torch.zeros(()), [], 0
    for tokens, targets, starts in zip(rows.tokens, rows.targets, rows.starts, strict=True):
        borders = [*np.flatnonzero(starts).tolist(), len(tokens)]
        parts = [slice(begin, end) for begin, end in pairwise(borders)]
        losses = [model(*(torch.from_numpy(x[None, part]) for x in (tokens, targets))) for part in parts]
        found = int((targets >= 0).sum())
        whole, count = whole + sum(losses), count + found
        means += [sum(loss.item() for loss in losses) / found] if found else []
    (whole / count).backward()
    norm = torch.stack([p.grad.norm() for p in model.parameters() if p.grad is not None]).norm()
    return float(whole) / count, sum(means) / len(means), float(norm)


LAYOUTS: list[tuple[int, dict[str, str]]] = [
    (2, {"train__device_batch": "1", "parallel__zero_stage": "2"}),
    (1, {"train__device_batch": "1"}),
    (2, {"parallel__tp": "2", "parallel__sequence_parallel": "true"}),
    (2, {"parallel__cp": "2"}),
]
RARE: list[tuple[int, dict[str, str]]] = [
    (1, {"train__device_batch": "8", "parallel__zero_stage": "0"}),
    (2, {"train__device_batch": "4", "parallel__zero_stage": "3"}),
    (4, {"parallel__tp": "2", "parallel__cp": "2"}),
    (4, {"parallel__cp": "2", "parallel__zero_stage": "2", "train__device_batch": "1"}),
]


@pytest.mark.parametrize(
    ("settings", "layouts"),
    [
        pytest.param({}, LAYOUTS, id="packed"),
        pytest.param(CONCAT, LAYOUTS[:1], id="strung"),
        pytest.param({}, RARE, id="packed, rare", marks=pytest.mark.full),
        pytest.param(CONCAT, LAYOUTS[1:] + RARE, id="strung, rare", marks=pytest.mark.full),
    ],
)
def test_every_step_is_the_same_at_any_layout_micro_batch_and_accumulation(
    request: pytest.FixtureRequest,
    one_rank: Ranks,
    corpus: Corpus,
    base: Path,
    data: Path,
    tmp_path: Path,
    settings: dict[str, str],
    layouts: list[tuple[int, dict[str, str]]],
) -> None:
    """Also the last of an epoch, which lacks rows, so that some ranks and micro-batches have nothing to learn."""
    alone = tmp_path / "alone"
    assert one_rank(finetune, words(corpus, alone, base, data, **settings)) == [0]
    wanted = checkpoint_tensors(last(alone))
    begun = CheckpointWeights(last(base)).weights
    for number, (processes, layout) in enumerate(layouts):
        run = tmp_path / str(number)
        ranks: Ranks = request.getfixturevalue({1: "one_rank", 2: "two_ranks", 4: "four_ranks"}[processes])
        assert ranks(finetune, words(corpus, run, base, data, **settings, **layout)) == [0] * processes
        assert figures(run) == pytest.approx(figures(alone), rel=1e-4), layout
        assert figures(run, "gradient_norm") == pytest.approx(figures(alone, "gradient_norm"), rel=1e-3), layout
        found = checkpoint_tensors(last(run))
        for name, before in begun.items():
            moved = (wanted[name] - before).norm()
            assert (found[name] - wanted[name]).norm() <= 1e-2 * moved, (layout, name)


def test_the_loss_is_the_mean_over_targets_not_over_rows_and_packing_changes_neither_it_nor_the_gradient(
    one_rank: Ranks, corpus: Corpus, base: Path, data: Path, tmp_path: Path
) -> None:
    overrides = words(corpus, tmp_path / "run", base, data, train__device_batch="1")
    mean, mean_of_means, norm = unpacked(base, overrides)
    assert one_rank(finetune, overrides) == [0]
    assert figures(tmp_path / "run")[0] == pytest.approx(mean, rel=1e-5)
    assert figures(tmp_path / "run", "gradient_norm")[0] == pytest.approx(norm, rel=1e-4)
    assert abs(mean_of_means - mean) > 1e-3, "the test could not tell the two apart"


def of_length(tokenizer: Tokenizer, length: int) -> list[Message]:
    """A conversation of so many tokens."""
    for letters in range(length):
        messages = said("a" * letters, "b")
        if len(render(tokenizer, messages)[0]) == length:
            return messages
    raise AssertionError(f"no conversation of {length} tokens")


def test_packed_is_unpacked_where_chunks_meet_within_the_convolutions_reach(
    two_ranks: Ranks, corpus: Corpus, base: Path, tmp_path: Path
) -> None:
    """Conversations begin at 31, 32 and 33 of rows that context parallelism splits at 32; the kernel looks 2 back."""
    tokenizer = Tokenizer.load(corpus.tokenizer)
    data = write(tmp_path / "rows.jsonl", [of_length(tokenizer, n) for n in (33, 32, 32, 32, 31, 31)])
    overrides = words(corpus, tmp_path / "run", base, data, parallel__cp="2")
    rows = open_conversations(recipe(overrides)).train
    starts = rows.read(0, 3).starts
    assert starts is not None
    assert sorted(int(np.flatnonzero(row)[1]) for row in starts) == [31, 32, 33]
    mean, _, norm = unpacked(base, overrides)
    assert two_ranks(finetune, overrides) == [0, 0]
    assert figures(tmp_path / "run") == [pytest.approx(mean, rel=1e-5)]
    assert figures(tmp_path / "run", "gradient_norm") == [pytest.approx(norm, rel=1e-4)]
    assert any(
        "an epoch has 3 rows and a step 8: each step trains on all of them" in note
        for note in notes(tmp_path / "run")
    )


@pytest.mark.parametrize("stop", [1, 3], ids=["in the middle of an epoch", "at its border"])
def test_resume_is_bit_exact(
    one_rank: Ranks, two_ranks: Ranks, corpus: Corpus, base: Path, data: Path, tmp_path: Path, stop: int
) -> None:
    split = {"parallel__zero_stage": "2", "train__dtype": "bf16", "train__device_batch": "1"}
    layout = split if stop == 3 else {**CONCAT, "train__device_batch": "8"}
    ranks, whole, stopped = two_ranks if stop == 3 else one_rank, tmp_path / "whole", tmp_path / "stopped"
    settings = {"train__epochs": "2", "checkpoint__every": "1", **layout}
    assert ranks(finetune, words(corpus, whole, base, data, **settings)) == [0] * ranks.size
    inputs = open_conversations(recipe(words(corpus, tmp_path / "other", base, data, **settings)))
    assert stop != 3 or inputs.train.steps_per_epoch == stop
    stop_after(whole, stopped, stop)
    again = words(corpus, stopped, base, data, run__resume="true", **settings)
    assert ranks(finetune, again) == [0] * ranks.size
    wanted, found = (checkpoint_tensors(last(folder)) for folder in (whole, stopped))
    assert wanted.keys() == found.keys()
    assert [name for name in wanted if not torch.equal(wanted[name], found[name])] == []
    assert figures(whole) == figures(stopped)
    assert not any("up to here" in note for note in notes(stopped))


@pytest.mark.parametrize("device_batch", ["2", "4"])
def test_an_epoch_is_so_many_optimizer_steps_whatever_the_accumulation_and_no_rate_is_negative(
    corpus: Corpus, base: Path, data: Path, tmp_path: Path, device_batch: str, one_rank: Ranks
) -> None:
    """Upstream counted micro-batches: of 100 steps asked for 13 were done, and rates fell to -0.25."""
    settings = {**CONCAT, "train__device_batch": device_batch, "train__epochs": "2"}
    settings |= {
        "evaluation__every": "2",
        "evaluation__tokens": "64",
        "tasks__val": str(data),
    }  # which stopped upstream's training
    overrides = words(corpus, tmp_path / "run", base, data, **settings)
    inputs = open_conversations(recipe(overrides, "mid_demo"))
    steps = 2 * -(-inputs.train.rows // 8)
    assert inputs.recipe.train.steps == steps > 6
    assert one_rank(finetune, overrides, "mid_demo") == [0]
    rates = [entry["learning_rates"]["matrix"] / 0.02 for entry in log(tmp_path / "run", "step")]
    course = [min(1.0, (steps - step) / round(0.2 * steps)) for step in range(steps)]
    assert rates == pytest.approx(course)
    assert min(rates) > 0


def test_finetuning_falls_from_its_fraction_to_nothing_with_one_momentum(
    corpus: Corpus, base: Path, data: Path, tmp_path: Path, one_rank: Ranks
) -> None:
    overrides = words(corpus, tmp_path / "run", base, data, train__steps="4", optimizer__lr_fraction="0.02")
    assert one_rank(finetune, overrides) == [0]
    steps = log(tmp_path / "run", "step")
    assert [s["learning_rates"]["matrix"] for s in steps] == pytest.approx([0.0004, 0.0003, 0.0002, 0.0001])
    assert [s["momentum"] for s in steps] == [0.95] * 4


def test_the_checkpoint_is_a_chat_models_and_another_template_is_told(
    corpus: Corpus, base: Path, data: Path, tmp_path: Path, one_rank: Ranks, capsys: pytest.CaptureFixture[str]
) -> None:
    assert one_rank(finetune, words(corpus, tmp_path / "first", base, data, train__steps="1")) == [0]
    saved = last(tmp_path / "first") / "recipe.toml"
    run = load_recipe(saved).run
    assert (run.stage, run.template) == ("chat", template_hash())
    assert not any("template" in note for note in notes(tmp_path / "first"))
    copy = Path(shutil.copytree(last(tmp_path / "first"), tmp_path / "copy"))
    text = (copy / "recipe.toml").read_text().replace(template_hash(), "0" * 12)
    (copy / "recipe.toml").write_text(text)
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["files"]["recipe.toml"] = describe(copy / "recipe.toml")
    (copy / "manifest.json").write_text(json.dumps(manifest))
    assert one_rank(finetune, words(corpus, tmp_path / "second", copy, data, train__steps="1")) == [0]
    told = [note for note in notes(tmp_path / "second") if "template" in note]
    assert told == [
        f"the model has learned conversations in another template (000000000000) than this version's "
        f"({template_hash()}): it has to learn the form anew"
    ]
    assert without_places(load_recipe(saved)).run.template == template_hash(), "an export says which one, too"
    load_model(tmp_path / "first")
    assert not capsys.readouterr().err
    load_model(copy)
    assert "another template (000000000000) than this version's" in capsys.readouterr().err


def test_a_warm_optimizer_goes_on_with_the_state_it_had(
    corpus: Corpus, base: Path, data: Path, tmp_path: Path, one_rank: Ranks, two_ranks: Ranks
) -> None:
    """With no rate and nothing decayed but the moments: after a step they still hold what they began with."""
    still = {f"optimizer__{name}_lr": "0" for name in ("matrix", "embedding", "unembedding")}
    found = {}
    for name, ranks in (("fresh", one_rank), ("warm", two_ranks)):
        settings = {**still, "train__steps": "1", "optimizer__start": name}
        assert ranks(finetune, words(corpus, tmp_path / name, base, data, **settings)) == [0] * ranks.size
        found[name] = checkpoint_tensors(last(tmp_path / name))
    before = checkpoint_tensors(last(base))
    for tensor in (t for t in before if t.endswith((".momentum", ".mean"))):
        decay = 0.95 if tensor.endswith(".momentum") else 0.8
        carried = found["warm"][tensor] - found["fresh"][tensor]
        assert carried == pytest.approx(decay * before[tensor], abs=1e-6), tensor
    assert notes(tmp_path / "warm")[0].endswith("step 4, and the state of its optimizer")


def test_the_run_tells_what_became_of_each_sources_rows(
    corpus: Corpus, base: Path, data: Path, tmp_path: Path, one_rank: Ranks
) -> None:
    long = write(
        tmp_path / "long.jsonl", [said("q", "long " * 90), said("q", "a"), [*said("q", "a"), *said("q", "b " * 90)]]
    )
    overrides = words(corpus, tmp_path / "run", base, data, train__steps="1", tasks__mixture=f"{data} | {long}")
    assert one_rank(finetune, overrides) == [0]
    told = {e["group"]: e["values"] for e in log(tmp_path / "run", "figures") if e["step"] == 0}
    assert told.keys() == {"conversations/all.jsonl", "conversations/long.jsonl", "conversations/all"}
    own = told["conversations/long.jsonl"]
    assert [own[name] for name in ("read", "dropped", "cut", "without_target")] == [3, 1, 1, 0]
    assert told["conversations/all"]["read"] == 33
    assert own["targets"] == 4


def test_held_out_conversations_are_told_by_language(
    corpus: Corpus, base: Path, data: Path, tmp_path: Path, one_rank: Ranks, two_ranks: Ranks
) -> None:
    toml = tmp_path / "own.toml"
    both = {"a": f'task = "{data}"', "b": f'task = "{data}"\nsettings = {{ language = "ja" }}\nrows = 20'}
    tables = "".join(f"[tasks.val.{name}]\n{table}\n" for name, table in both.items())
    recipes = Path(__file__).parents[2] / "megatron_iberis/config/recipes"
    text = (recipes / "sft_demo.toml").read_text()
    toml.write_text(text[: text.index("[tasks.val]")] + tables + text[text.index("[checkpoint]") :])
    found = {}
    for name, ranks in (("one", one_rank), ("two", two_ranks)):
        overrides = words(corpus, tmp_path / name, base, data, train__steps="1", evaluation__tokens="100000")
        overrides = [word for word in overrides if not word.startswith("--tasks.val")]
        assert ranks(finetune, overrides, str(toml)) == [0] * ranks.size
        (by_language, *_) = [e["values"] for e in log(tmp_path / name, "figures") if e["group"] == "validation"]
        found[name] = {**by_language, "all": log(tmp_path / name, "validation")[0]["bits_per_byte"]}
    assert found["one"].keys() == {"bits_per_byte_en", "bits_per_byte_ja", "loss_en", "loss_ja", "all"}
    assert found["one"] == pytest.approx(found["two"], rel=1e-5)
    assert min(found["one"][f"bits_per_byte_{x}"] for x in ("en", "ja")) < found["one"]["all"]


def test_tasks_are_measured_while_a_chat_model_is_trained_the_same_on_two_ranks(
    corpus: Corpus, base: Path, data: Path, tmp_path: Path, one_rank: Ranks, two_ranks: Ranks
) -> None:
    file = write(tmp_path / "mine.jsonl", [said("why", "the river"), said("川は", "海へ流れる"), said("how", "cold")])
    settings = {"train__steps": "2", "evaluation__tasks": str(file), "evaluation__tasks_every": "1"}
    found = []
    for name, ranks in (("one", one_rank), ("two", two_ranks)):
        overrides = words(corpus, tmp_path / name, base, data, **settings)
        assert ranks(finetune, overrides) == [0] * ranks.size
        found.append([(e["step"], e["values"]) for e in log(tmp_path / name, "figures") if e["group"] == "tasks"])
    assert [step for step, _ in found[0]] == [1, 2]
    for (_, one), (_, two) in zip(*found, strict=True):
        assert {"mine", "mine/bits_per_byte"} <= one.keys()
        assert one == pytest.approx(two, rel=1e-4)


REFUSED = [
    ({"tasks__mixture": ""}, "tasks.mixture is empty"),
    ({"tasks__mixture": "nothing.jsonl"}, "nothing.jsonl"),
    ({"model__sequence_length": "4", "train__batch_tokens": "64"}, "30 are longer than a row of 4 tokens"),
    ({"run__start_from": ""}, "run.start_from is not set"),
    ({"data__packing": "megatron"}, "is for token files"),
    ({"model__width": "64"}, "the model in .* has model.width = 32, not 64"),
]


@pytest.mark.parametrize(("settings", "message"), REFUSED)
def test_what_would_train_nothing_is_refused_in_a_sentence(
    corpus: Corpus, base: Path, data: Path, tmp_path: Path, settings: dict[str, str], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        open_conversations(recipe(words(corpus, tmp_path / "run", base, data, **settings)))
    assert not (tmp_path / "run").exists()


def test_to_train_on_a_task_takes_what_it_is_not_evaluated_on(
    corpus: Corpus, base: Path, data: Path, tmp_path: Path
) -> None:
    rows = [f'{{"question": "{n} and {n}?", "answer": "It is {2 * n}.\\n#### {2 * n}"}}' for n in range(9)]
    for split, lines in (("train", rows[:7]), ("test", rows[7:])):
        path = tmp_path / "root" / "gsm8k" / f"{split}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(lines) + "\n")
    settings = {"tasks__root": str(tmp_path / "root"), "tasks__mixture": "gsm8k", "tasks__val": "gsm8k"}
    inputs = open_conversations(recipe(words(corpus, tmp_path / "run", base, data, **settings)))
    assert inputs.train.conversations.counts["gsm8k"].read == 7
    assert inputs.val["en"].conversations.counts["gsm8k"].read == 2


def test_a_slice_that_the_task_has_not_is_refused(corpus: Corpus, base: Path, data: Path, tmp_path: Path) -> None:
    toml = tmp_path / "own.toml"
    toml.write_text(f'[tasks.mixture.a]\ntask = "{data}"\nrows = 31\n')
    overrides = [w for w in words(corpus, tmp_path / "run", base, data) if not w.startswith("--tasks.mixture")]
    asked = recipe([*overrides, "--model.inner_norm"], str(toml))
    with pytest.raises(InputError, match=r"asks for rows 0 to 31 and .* has 30: lower tasks.mixture.a.rows"):
        open_conversations(asked)


def test_pretraining_does_not_pass_over_a_mixture_in_silence(corpus: Corpus, data: Path, tmp_path: Path) -> None:
    asked = load_recipe("demo", [*pretraining(corpus, tmp_path / "run"), f"--tasks.mixture={data}"])
    with pytest.raises(InputError, match=r"is what examples/midtrain.sh and sft.sh train on"):
        open_inputs(asked)
