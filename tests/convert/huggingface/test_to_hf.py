"""`iberis convert to-hf` writes a whole folder that needs nothing of this package and was compared, or nothing."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import types
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from huggingface_hub import constants
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from megatron_iberis.checkpoint.weights import CheckpointWeights
from megatron_iberis.checkpoint.weights_only import save_weights
from megatron_iberis.cli import main
from megatron_iberis.config import load_recipe
from megatron_iberis.convert import outgoing
from megatron_iberis.convert.huggingface import comparison, export
from megatron_iberis.model.reference import ReferenceIberis
from megatron_iberis.tokenizer import Tokenizer
from tests.support.model_hub import ModelHub

from .conftest import MODEL, SHARD_BYTES, likeliest, recipe_of

MODELLING = Path(export.__file__).with_name("modeling_iberis.py")
ELSEWHERE = """
import json, sys

class Nothing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("megatron_iberis", "megatron"):
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Nothing())
from transformers import AutoModelForCausalLM, AutoTokenizer
folder = sys.argv[1]
tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)
inputs = tokenizer("The ferry leaves", return_tensors="pt")
out = model.generate(**inputs, max_new_tokens=8, do_sample=False)
print(json.dumps([inputs["input_ids"][0].tolist(), out[0].tolist()]))
"""


def weights_in(folder: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}
    for path in sorted(folder.glob("*.safetensors")):
        found.update(load_file(path))
    return found


def to_hf(*arguments: object) -> int:
    return main(["convert", "to-hf", *map(str, arguments)])


def test_it_runs_where_this_package_is_not_installed(
    exported: Path, reference: ReferenceIberis, tmp_path: Path
) -> None:
    shutil.copytree(exported, tmp_path / "taken away")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"HF_MODULES_CACHE": str(tmp_path / "modules"), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", ELSEWHERE, str(tmp_path / "taken away")]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    prompt, ids = json.loads(done.stdout)
    assert ids == prompt + likeliest(reference, prompt, 8, (5, 1))


def test_files_hold_the_weights_bit_for_bit(exported: Path, reference: ReferenceIberis) -> None:
    found = weights_in(exported)
    assert found.keys() == reference.state_dict().keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in reference.state_dict().items())
    index = json.loads((exported / "model.safetensors.index.json").read_text())
    assert index["weight_map"].keys() == found.keys()
    assert index["metadata"]["total_size"] == 4 * MODEL.parameter_count()
    largest = max(4 * tensor.numel() for tensor in found.values())
    shards = sorted(exported.glob("*.safetensors"))
    assert len(shards) > 2
    assert all(path.stat().st_size < max(SHARD_BYTES, largest) + 4096 for path in shards)
    assert {path.stat().st_mode & 0o777 for path in exported.iterdir() if path.is_file()} == {
        0o666 & ~os.umask(os.umask(0o022))
    }


def test_the_card_tells_what_it_is_and_how_exact(exported: Path) -> None:
    card = (exported / "README.md").read_text()
    _, front, text = card.split("---\n", 2)
    described = yaml.safe_load(front)
    assert described["license"] == "mit"
    assert described["library_name"] == "transformers"
    assert described["pipeline_tag"] == "text-generation"
    assert f"| parameters | {MODEL.parameter_count():,} |" in text
    assert "| trained for | 7 steps" in text
    assert "This is a chat model" in text
    assert "split_special_tokens=True" in text
    assert "vLLM and SGLang cannot serve" in text
    told = text.split("largest difference of logits | ")[1].split(" ")[0]
    assert 0 < float(told) < 1e-4
    recipe = exported / "recipe.toml"
    assert recipe.read_text().strip() in text
    assert load_recipe(recipe).model == MODEL
    assert "/home/me" not in text, "an export is for others"


def test_bf16_of_a_unigram_model_through_the_command(
    reference: ReferenceIberis, tokenizer_folders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tokenizer = Tokenizer.load(tokenizer_folders["unigram"])
    save_weights(tmp_path / "weights", recipe_of(MODEL, "base"), tokenizer, reference.state_dict(), 3, "a test")
    output = tmp_path / "new" / "folder"
    assert to_hf("--input", tmp_path / "weights", "--output", output, "--dtype", "bf16") == 0
    said = capsys.readouterr().out
    assert "at most, computed in fp32" in said
    assert "at most, computed in bf16" in said
    assert not (output / "model.safetensors.index.json").exists()
    for name, tensor in weights_in(output).items():
        assert torch.equal(tensor, reference.state_dict()[name].bfloat16()), name
    assert json.loads((output / "config.json").read_text())["dtype"] == "bfloat16"
    assert "This is a base model" in (output / "README.md").read_text()
    assert [path.name for path in output.parent.iterdir()] == ["folder"]


@pytest.mark.full
def test_a_model_with_nanochats_tokenizer_is_exported(
    reference: ReferenceIberis, tokenizer_folders: dict[str, Path], tmp_path: Path
) -> None:
    tokenizer = Tokenizer.load(tokenizer_folders["tiktoken"])
    save_weights(tmp_path / "weights", recipe_of(MODEL), tokenizer, reference.state_dict(), 3, "a test")
    export.export(tmp_path / "weights", tmp_path / "exported")
    generation = json.loads((tmp_path / "exported" / "generation_config.json").read_text())
    assert generation["pad_token_id"] == generation["bos_token_id"] == tokenizer.bos_id
    assert generation["eos_token_id"] == [tokenizer.specials["<|assistant_end|>"], tokenizer.bos_id]


def test_other_logits_than_the_checkpoints_are_found_out(exported: Path, checkpoint: Path, tmp_path: Path) -> None:
    shutil.copytree(exported, tmp_path / "wrong")
    index = json.loads((exported / "model.safetensors.index.json").read_text())["weight_map"]
    name = "transformer.h.0.attn.conv1d.weight"
    tensors = load_file(tmp_path / "wrong" / index[name])
    tensors[name][:, :, 0] *= 1.1  # the oldest tap, a little
    save_file(tensors, tmp_path / "wrong" / index[name], metadata={"format": "pt"})
    weights = CheckpointWeights(checkpoint)
    tokenizer = Tokenizer.load(weights.tokenizer)
    with pytest.raises(RuntimeError, match="gives other logits than the checkpoint"):
        comparison.compare(tmp_path / "wrong", MODEL, weights.weights, torch.float32, tokenizer)


def test_nothing_is_left_when_the_comparison_fails(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("other logits")

    monkeypatch.setattr(export, "compare", fail)
    with pytest.raises(RuntimeError, match="other logits"):
        export.export(checkpoint, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def damage(folder: Path) -> Path:
    path = next(folder.glob("model-*.safetensors"))
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    return folder


def without_a_weight(folder: Path) -> Path:
    weights = CheckpointWeights(folder)
    kept = {name: weights.weights[name] for name in list(weights.weights)[1:]}
    target = folder.with_name("fewer")
    save_weights(target, weights.recipe, Tokenizer.load(weights.tokenizer), kept, 1, "a test")
    return target


def with_more_ids(folder: Path) -> Path:
    weights = CheckpointWeights(folder)
    model = replace(MODEL, vocab_size=400)
    kept = {name: tensor[:400] if tensor.shape[0] == 512 else tensor for name, tensor in weights.weights.items()}
    target = folder.with_name("fewer ids")
    save_weights(target, recipe_of(model), Tokenizer.load(weights.tokenizer), kept, 1, "a test")
    return target


@pytest.mark.parametrize(
    ("spoil", "arguments", "said"),
    [
        (with_more_ids, [], "has 480 ids and the model 400: put back the tokenizer"),
        (lambda folder: folder / "nowhere", [], "holds no checkpoint"),
        (damage, [], "does not have the checksum that it was written with"),
        (without_a_weight, [], "lacks the weight lm_head.weight"),
        (lambda folder: folder, ["--max-shard-size", "0GB"], "--max-shard-size 0GB is no size"),
        (lambda folder: folder, ["--max-shard-size", "many"], "is no size: write it like 500MB or 5GB"),
        (lambda folder: folder, ["--push-to", "name"], "'name' is no repository: write it as USER/NAME"),
        (lambda folder: folder, ["--dtype", "fp8"], "invalid choice: 'fp8'"),
    ],
)
def test_a_mistake_is_one_sentence_and_writes_nothing(
    checkpoint: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    spoil: Callable[[Path], Path],
    arguments: list[str],
    said: str,
) -> None:
    folder = spoil(Path(shutil.copytree(checkpoint, tmp_path / "inputs" / "step-00000007")))
    try:
        code = to_hf("--input", folder, "--output", tmp_path / "out", *arguments)
    except SystemExit as end:  # argparse's own way to end
        code = int(end.code or 0)
    found = capsys.readouterr()
    assert (code, found.out) == (2, "")
    assert found.err.startswith("error: ")
    assert found.err.count("\n") == 1
    assert said in found.err
    assert [path.name for path in tmp_path.iterdir()] == ["inputs"]


def test_a_folder_that_is_there_is_left_alone(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("mine")
    assert to_hf("--input", checkpoint, "--output", tmp_path / "out") == 2
    assert "out is there already" in capsys.readouterr().err
    assert (tmp_path / "out" / "mine").read_text() == "mine"


@pytest.mark.parametrize(
    "error",
    [OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), SafetensorError("I/O error: (os error 28)")],
    ids=["python", "safetensors"],
)
def test_a_full_disk_is_one_sentence_and_leaves_nothing(
    checkpoint: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
) -> None:
    def fill(tensors: dict[str, Any], path: Path, metadata: Any) -> None:
        path.write_bytes(b"half")
        raise error

    monkeypatch.setattr(export, "save_tensors", fill)
    assert to_hf("--input", checkpoint, "--output", tmp_path / "out") == 2
    assert "the disk is full" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_too_little_room_is_said_before_anything_is_written(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "OTHER_FILES", 2**60)
    assert to_hf("--input", checkpoint, "--output", tmp_path / "out") == 2
    assert "make room, or name a folder on another disk" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("version", "refused"), [("5.17.3", True), ("4.57.6", True), ("5.18.0", False)])
def test_the_code_refuses_a_transformers_that_is_too_old(
    monkeypatch: pytest.MonkeyPatch, version: str, refused: bool
) -> None:
    old = types.ModuleType("transformers")
    old.__version__ = version  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "transformers", old)
    with pytest.raises(ImportError) as error:
        exec(compile(MODELLING.read_text(), MODELLING, "exec"), {"__name__": "modeling_iberis"})
    assert (f"needs transformers 5.18 or newer, and this is {version}" in str(error.value)) == refused


@pytest.mark.parametrize("found", ["5.17.3", None])
def test_a_missing_or_old_transformers_is_said(
    checkpoint: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    found: str | None,
) -> None:
    def version(name: str) -> str:
        if found is None:
            raise PackageNotFoundError(name)
        return found

    monkeypatch.setattr(outgoing, "version", version)
    assert to_hf("--input", checkpoint, "--output", tmp_path / "out") == 2
    assert "pip install 'megatron_iberis[hf]'" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


# The Hub


@pytest.fixture
def push(checkpoint: Path, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], int]:
    """Runs the command, with an export that is ready, against the Hub at an address."""

    def ready(source: Path, output: Path, *_: object) -> export.Exported:
        shutil.copytree(exported, output)
        return export.Exported(output, 7, 1, comparison.Difference(0.0, 0.0))

    monkeypatch.setattr(export, "export", ready)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("HF_TOKEN", "hf_test")

    def run(hub: str) -> int:
        monkeypatch.setattr(constants, "ENDPOINT", hub)
        return to_hf("--input", checkpoint, "--output", tmp_path / "out", "--push-to", "me/small")

    return run


def test_the_folder_is_sent_to_the_hub_in_one_commit(
    push: Callable[[str], int], exported: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with ModelHub("me/small") as hub:
        assert push(hub.url) == 0
    assert f"sent to  {hub.url}/me/small/commit/{'2' * 40}" in capsys.readouterr().out
    wanted = {path.relative_to(exported).as_posix(): path for path in exported.rglob("*") if path.is_file()}
    assert hub.files.keys() == wanted.keys()
    assert all(hub.files[name] == path.read_bytes() for name, path in wanted.items())
    assert (hub.commits, hub.private) == (1, True)


@pytest.mark.parametrize(
    ("refuse", "said"),
    [
        ({"/create": 401}, "answers 401 for me/small: it may want a login: set HF_TOKEN, and send"),
        ({"/commit/main": 403}, "answers 403 for me/small"),
        ({"/batch": 403}, "answers 403 for me/small"),
        ({"/object/": 403}, "answers 403 for me/small"),
        (None, "me/small cannot be sent to http://127.0.0.1:9"),
    ],
    ids=str,
)
def test_what_could_not_be_sent_stays_and_the_command_for_later_is_told(
    push: Callable[[str], int],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    refuse: dict[str, int] | None,
    said: str,
) -> None:
    with ModelHub("me/small") as hub:
        hub.refuse = refuse or {}
        assert push(hub.url if refuse else "http://127.0.0.1:9") == 2
    found = capsys.readouterr().err.splitlines()[-1]
    assert said in found
    assert f"hf upload me/small {tmp_path / 'out'}" in found
    assert hub.files == {}
    assert (tmp_path / "out" / "README.md").is_file()
