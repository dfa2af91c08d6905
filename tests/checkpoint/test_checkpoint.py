"""A checkpoint is of full tensors by canonical name: whatever layout wrote it, any other resumes from it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from megatron_iberis.checkpoint.load import Checkpoint
from megatron_iberis.config import load_recipe
from megatron_iberis.model.reference import ReferenceIberis
from tests.conftest import Corpus
from tests.support.ranks import Ranks
from tests.support.runs import checkpoint_tensors, log, pretrain, stop_after, words

BARE = {"evaluation__every": "0", "evaluation__sample_every": "0", "evaluation__tokens": "64", "train__dtype": "fp32"}
SEQUENCE = {"parallel__tp": "2", "parallel__sequence_parallel": "true", "train__device_batch": "8"}
LAYOUTS = {
    "one process": (1, {"parallel__zero_stage": "0", "train__device_batch": "8"}),
    "TP 2, ZeRO 1": (2, {"parallel__tp": "2", "train__device_batch": "4"}),
    "DP 2, ZeRO 3": (2, {"parallel__zero_stage": "3"}),
    "TP 2 + sequence, ZeRO 2": (2, {"parallel__zero_stage": "2", **SEQUENCE}),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_names_and_shapes_are_canonical(
    request: pytest.FixtureRequest, tmp_path: Path, corpus: Corpus, layout: str
) -> None:
    processes, settings = LAYOUTS[layout]
    ranks: Ranks = request.getfixturevalue("one_rank" if processes == 1 else "two_ranks")
    odd = {"model__vocab_size": "601", "model__kv_heads": "1"}  # padded, and replicated, at TP 2
    assert ranks(pretrain, words(corpus, tmp_path, **BARE, **odd, **settings, train__steps="1")) == [0] * processes

    folder = tmp_path / "checkpoints" / "step-00000001"
    model = ReferenceIberis(load_recipe(str(folder / "recipe.toml")).model)
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    weights = Checkpoint(folder).weights
    assert {name: tensor.shape for name, tensor in weights.items()} == shapes
    assert all(tensor.dtype == torch.float32 for tensor in weights.values())

    state = {name: t.shape for path in folder.glob("optimizer-*") for name, t in load_file(path).items()}
    wanted = {}
    for name, shape in shapes.items():
        muon = len(shape) == 2 and name.startswith("transformer.h.")
        wanted.update({f"{name}.{part}": shape for part in (("momentum",) if muon else ("mean", "square"))})
    assert state == wanted


def test_a_run_goes_on_at_any_other_layout(one_rank: Ranks, two_ranks: Ranks, tmp_path: Path, corpus: Corpus) -> None:
    settings = {**BARE, "model__inner_norm": "true", "train__steps": "12", "checkpoint__every": "3"}
    whole = tmp_path / "whole"
    assert one_rank(pretrain, words(corpus, whole, **{**settings, **LAYOUTS["one process"][1]})) == [0]

    chain = ["TP 2, ZeRO 1", "one process", "DP 2, ZeRO 3", "TP 2 + sequence, ZeRO 2"]
    for link, name in enumerate(chain):
        processes, layout = LAYOUTS[name]
        run = tmp_path / f"link{link}"
        if link > 0:
            stop_after(tmp_path / f"link{link - 1}", run, 3 * link)
        chosen = words(corpus, run, **{**settings, **layout, "run__resume": str(link > 0)})
        assert (one_rank if processes == 1 else two_ranks)(pretrain, chosen) == [0] * processes

    wanted, found = (log(folder, "step") for folder in (whole, tmp_path / "link3"))
    assert [entry["step"] for entry in found] == list(range(1, 13))
    for key in ("loss", "gradient_norm"):
        assert [entry[key] for entry in found] == pytest.approx([entry[key] for entry in wanted], rel=1e-5), key
    start, last = (checkpoint_tensors(whole / "checkpoints" / f"step-{step:08d}") for step in (3, 12))
    moved = checkpoint_tensors(tmp_path / "link3" / "checkpoints" / "step-00000012")
    for name in Checkpoint(whole / "checkpoints" / "step-00000012").weights:
        change = last[name] - start[name]
        assert (moved[name] - last[name]).norm() <= 1e-3 * change.norm(), name
