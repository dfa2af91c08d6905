"""From a checkpoint's folder to text: what is loaded, what is said, when it ends."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from megatron_iberis.checkpoint.weights import CheckpointWeights
from megatron_iberis.errors import InputError
from megatron_iberis.inference.generation import ModelGenerator, stop_ids
from megatron_iberis.inference.load import LoadedModel, load_model
from megatron_iberis.inference.pieces import Piece
from megatron_iberis.inference.sampling import Sampling
from megatron_iberis.model.reference import ReferenceIberis
from tests.conftest import Corpus
from tests.support.decoding import likeliest_after
from tests.support.ranks import Ranks
from tests.support.runs import pretrain, words

GREEDY = Sampling(temperature=0)


@pytest.fixture(scope="module")
def run(one_rank: Ranks, tmp_path_factory: pytest.TempPathFactory, corpus: Corpus) -> Path:
    """A run of ten steps, with checkpoints after five and ten."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    bare = {"evaluation__every": "0", "evaluation__sample_every": "0", "evaluation__tokens": "64"}
    assert one_rank(pretrain, words(corpus, folder, **bare)) == [0]
    return folder


@pytest.fixture
def model(run: Path) -> LoadedModel:
    return load_model(run, "fp32", "cpu")


def reference_of(run: Path, step: int) -> ReferenceIberis:
    checkpoint = CheckpointWeights(run / "checkpoints" / f"step-{step:08d}")
    whole = ReferenceIberis(checkpoint.recipe.model)
    whole.load_state_dict(dict(checkpoint.weights))
    return whole.eval()


@pytest.mark.parametrize(
    ("folder", "step"), [("", 10), ("checkpoints/step-00000010", 10), ("checkpoints/step-00000005", 5)]
)
def test_model_is_loaded_from_a_run_or_one_of_its_checkpoints(run: Path, folder: str, step: int) -> None:
    model = load_model(run / folder, "fp32", "cpu")
    assert model.step == step
    prompt = [model.tokenizer.bos_id, *model.tokenizer.encode("The moon 月")]
    ids = [i for piece in ModelGenerator(model).generate(prompt, GREEDY, 8) for i in piece.ids]
    assert ids == likeliest_after(reference_of(run, step), prompt, ids)[:-1]


@pytest.mark.parametrize("name", ["nothing", "", "checkpoints"])
def test_folder_without_a_checkpoint_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(InputError, match="holds no checkpoint: give a run folder, or a step-"):
        load_model(tmp_path / name)


def test_nothing_of_training_is_imported_to_answer(run: Path) -> None:
    code = (
        "import sys\n"
        "from megatron_iberis.cli import main\n"
        f"assert main(['generate', '--checkpoint', {str(run)!r}, '--prompt', 'x', '--tokens', '2']) == 0\n"
        "found = {'megatron', 'deepspeed', 'tensorboard', 'pyarrow'} & sys.modules.keys()\n"
        "assert not found, found\n"
        "assert not sys.modules['torch'].distributed.is_initialized()\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_pieces_add_up_to_the_whole_and_tell_what_it_took(model: LoadedModel) -> None:
    generator = ModelGenerator(model)
    prompt = [model.tokenizer.bos_id, *model.tokenizer.encode("むかし")]
    *pieces, last = list(generator.generate(prompt, GREEDY, 12))
    ids = [i for piece in pieces for i in piece.ids]
    text = model.tokenizer.decode(ids)
    assert "".join(piece.text for piece in [*pieces, last]) == text
    assert all(piece.finish is None for piece in pieces)
    assert last.finish == "length"
    assert last.usage is not None
    assert (last.usage.prompt_tokens, last.usage.completion_tokens) == (len(prompt), 12)
    assert 0 < last.usage.seconds_to_first <= last.usage.seconds


def test_a_stop_string_ends_the_answer_before_it(model: LoadedModel) -> None:
    generator = ModelGenerator(model)
    whole = generator.complete("The", 30, GREEDY)
    stop = whole[8:11]
    prompt = [model.tokenizer.bos_id, *model.tokenizer.encode("The")]
    pieces = list(generator.generate(prompt, GREEDY, 30, stop=[stop]))
    assert "".join(piece.text for piece in pieces) == whole[: whole.index(stop)]
    assert pieces[-1].finish == "stop"
    assert generator.engine.idle


@pytest.mark.parametrize("read", [0, 1, 3])
def test_closing_the_answer_cancels_the_request(model: LoadedModel, read: int) -> None:
    generator = ModelGenerator(model)
    pieces = generator.generate([model.tokenizer.bos_id], GREEDY, 30)
    for _ in range(read):
        next(pieces)
    assert (generator.engine.running, generator.engine.queued) == ((1, 0) if read else (0, 1))
    pieces.close()
    assert generator.engine.idle


def test_an_answer_can_be_given_up_while_its_prompt_is_read(model: LoadedModel) -> None:
    generator = ModelGenerator(model, prefill_tokens=4)
    pieces = generator.generate([model.tokenizer.bos_id] * 20, GREEDY, 5)
    assert next(pieces) == Piece("", [])
    assert generator.engine.running == 1
    pieces.close()
    assert generator.engine.idle
    *reading, first = [next(pieces) for pieces in [generator.generate([2] * 20, GREEDY, 5)] for _ in range(5)]
    assert [piece.ids for piece in reading] == [[]] * 4
    assert len(first.ids) == 1


def scripted(model: LoadedModel, monkeypatch: pytest.MonkeyPatch, ids: list[int]) -> ModelGenerator:
    """A generator whose model says these ids."""
    script = iter(ids)

    def says(*_: object) -> torch.Tensor:
        return torch.nn.functional.one_hot(torch.tensor([next(script)]), model.recipe.model.vocab_size).float()

    monkeypatch.setattr(type(model.decoder), "__call__", says)
    return ModelGenerator(model)


@pytest.mark.parametrize("end", ["<|bos|>", "<|assistant_end|>"])
def test_the_models_end_ends_the_answer(model: LoadedModel, monkeypatch: pytest.MonkeyPatch, end: str) -> None:
    ids = [*model.tokenizer.encode("fine"), model.tokenizer.specials[end], 5]
    assert set(stop_ids(model.tokenizer)) >= {model.tokenizer.specials[end]}
    pieces = list(scripted(model, monkeypatch, ids).generate([1], GREEDY, 20))
    assert "".join(piece.text for piece in pieces) == "fine"
    assert pieces[-1].finish == "stop"


def test_the_calculators_result_is_put_in(model: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = model.tokenizer
    said = [tokenizer.specials["<|python_start|>"], *tokenizer.encode("12*3"), tokenizer.specials["<|python_end|>"]]
    generator = scripted(model, monkeypatch, [*said, *tokenizer.encode("ok"), tokenizer.bos_id])
    pieces = list(generator.generate([1], GREEDY, 60, tools=True))
    output = [tokenizer.specials["<|output_start|>"], *tokenizer.encode("36"), tokenizer.specials["<|output_end|>"]]
    assert [i for piece in pieces for i in piece.ids] == [*said, *output, *tokenizer.encode("ok")]


def test_ids_that_the_tokenizer_does_not_have_are_never_chosen(model: LoadedModel) -> None:
    model.decoder.head = lambda x: torch.arange(model.recipe.model.vocab_size).expand(len(x), -1) / 100
    generator = ModelGenerator(model)
    generator.engine.vocabulary = 300
    piece: Piece = next(iter(generator.generate([1], GREEDY, 1)))
    assert piece.ids == [299]


def test_a_failing_model_is_not_taken_for_a_short_answer(model: LoadedModel) -> None:
    model.decoder.head = lambda x: torch.full((len(x), model.recipe.model.vocab_size), float("nan"))
    with pytest.raises(FloatingPointError, match="not finite"):
        list(ModelGenerator(model).generate([1], GREEDY, 3))
