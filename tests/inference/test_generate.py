"""Continuations: the likeliest token each time, or a draw that its seed decides; whatever the model's layout."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from megatron_iberis.checkpoint.load import Checkpoint
from megatron_iberis.config import ModelConfig
from megatron_iberis.inference.exact import continue_prompt, pick
from megatron_iberis.inference.load import load_model
from megatron_iberis.model.initialization import build_model, fill_parameters
from megatron_iberis.model.parameters import shards
from megatron_iberis.model.reference import ReferenceIberis
from tests.conftest import Corpus
from tests.support.comparison import randomise
from tests.support.ranks import Ranks, groups_of
from tests.support.runs import pretrain, words

CPU = torch.device("cpu")
MODEL = ModelConfig(
    depth=4, width=32, heads=4, kv_heads=2, vocab_size=61, sequence_length=16, inner_norm=True, mlp_hidden=48
).resolved()
PROMPT = [7, 3, 3, 11, 60, 2, 5]


def reference() -> ReferenceIberis:
    model = ReferenceIberis(MODEL)
    randomise(model, 1)
    return model


def likeliest(model: ReferenceIberis, prompt: list[int], count: int, context: int) -> list[int]:
    """The model run on the whole window for each token."""
    ids = list(prompt)
    with torch.no_grad():
        for _ in range(count):
            ids.append(int(model(torch.tensor([ids[-context:]]))[0, -1].argmax()))
    return ids[len(prompt) :]


def continued(tensor: int, sequence: bool, prompts: list[list[int]], count: int, multiple: int) -> list[list[int]]:
    """Runs on a rank: greedy continuations by a model of this layout."""
    model = build_model(MODEL, groups_of(tensor), sequence)
    fill_parameters(shards(model), reference().state_dict())
    return [
        continue_prompt(model, p, count, CPU, sequence_length=MODEL.sequence_length, multiple=multiple)
        for p in prompts
    ]


def test_greedy_is_the_argmax_at_any_layout(one_rank: Ranks, two_ranks: Ranks) -> None:
    prompts = [PROMPT[:length] for length in (1, 2, 7)]  # 12 more leave the context window of 16
    wanted = [likeliest(reference(), prompt, 12, MODEL.sequence_length) for prompt in prompts]
    for multiple in (1, 4):
        assert one_rank(continued, 1, False, prompts, 12, multiple) == [wanted]
    assert two_ranks(continued, 2, False, prompts, 12, 2) == [wanted, wanted]
    assert two_ranks(continued, 2, True, prompts, 12, 2) == [wanted, wanted]


def test_only_the_context_window_is_looked_at() -> None:
    model, beginning = reference(), [1, 2, 3, 4, 5, 6, 7, 8, 9]
    window = continue_prompt(model, PROMPT, 6, CPU, sequence_length=len(PROMPT))
    assert continue_prompt(model, beginning + PROMPT, 6, CPU, sequence_length=len(PROMPT)) == window
    assert continue_prompt(model, beginning + PROMPT, 6, CPU, sequence_length=64) == likeliest(
        model, beginning + PROMPT, 6, 64
    )


def test_a_continuation_ends_before_its_end_token() -> None:
    whole = continue_prompt(reference(), PROMPT, 8, CPU)
    end = whole[5]
    assert continue_prompt(reference(), PROMPT, 8, CPU, end=end) == whole[: whole.index(end)]
    assert continue_prompt(reference(), PROMPT, 8, CPU, end=-1) == whole


def test_the_seed_decides_the_draw() -> None:
    model = reference()
    drawn = [continue_prompt(model, PROMPT, 8, CPU, temperature=1.0, seed=seed) for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]
    before = torch.get_rng_state()
    continue_prompt(model, PROMPT, 2, CPU, temperature=1.0)
    assert torch.equal(before, torch.get_rng_state()), "the run's own random state is left alone"


def test_draw_follows_temperature_and_top_k() -> None:
    logits, generator = torch.tensor([0.0, 2.0, 1.0, -1.0]), torch.Generator().manual_seed(0)
    assert pick(logits, 0.0, 50, generator) == 1
    assert {pick(logits, 1.0, 1, generator) for _ in range(20)} == {1}
    assert {pick(logits, 1.0, 2, generator) for _ in range(100)} == {1, 2}
    drawn = torch.tensor([pick(logits, 2.0, 50, generator) for _ in range(4000)]).bincount(minlength=4) / 4000
    torch.testing.assert_close(drawn, (logits / 2).softmax(-1), rtol=0, atol=0.03)
    with pytest.raises(ValueError, match="temperature is -1"):
        continue_prompt(reference(), PROMPT, 1, CPU, temperature=-1.0)


# Trained models from their folders


def loaded(folder: Path, prompt: str) -> tuple[str, int, bool]:
    """Runs on a rank: what the model in a folder says, its step, and whether its weights are the checkpoint's."""
    model = load_model(folder)
    stored = Checkpoint(folder if "step-" in folder.name else folder / "checkpoints" / "step-00000010").weights
    same = all(torch.equal(shard.parameter, stored[shard.name]) for shard in shards(model.model))
    return model.complete(prompt, 5), model.step, same


def test_model_is_loaded_from_a_run_or_one_of_its_checkpoints(
    one_rank: Ranks, tmp_path: Path, corpus: Corpus
) -> None:
    bare = {"evaluation__every": "0", "evaluation__sample_every": "0", "evaluation__tokens": "64"}
    assert one_rank(pretrain, words(corpus, tmp_path, **bare)) == [0]
    checkpoints = tmp_path / "checkpoints"
    text, step, same = one_rank(loaded, tmp_path, "The moon 月")[0]
    assert (step, same) == (10, True)
    assert one_rank(loaded, checkpoints / "step-00000010", "The moon 月")[0] == (text, 10, True)
    assert one_rank(loaded, checkpoints / "step-00000005", "The moon 月")[0][1:] == (5, True)


@pytest.mark.parametrize("name", ["nothing", "", "checkpoints"])
def test_folder_without_a_checkpoint_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(ValueError, match="holds no checkpoint: give a run folder, or a step-"):
        load_model(tmp_path / name)


def test_a_launchers_environment_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    from megatron_iberis.parallel.start import start_alone

    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    assert not dist.is_initialized()
    try:
        assert start_alone().index in (None, 0)
        assert (dist.get_rank(), dist.get_world_size()) == (0, 1)
    finally:
        dist.destroy_process_group()
