"""A file of weights is a pickle, and a pickle can run any program: none that comes with it is ever run."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch

from megatron_iberis.convert.nanochat import read_nanochat
from megatron_iberis.errors import InputError
from tests.convert.test_from_nanochat import SMALL
from tests.support.nanochat import metadata, random_weights, write_checkpoint


class Runs:
    """Calls function(*arguments) when it is unpickled as a pickle."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self._call = function, arguments

    def __reduce__(self) -> Any:
        return self._call


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    return tmp_path / "it was run"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path, random_weights(SMALL), metadata(SMALL))


def refused(folder: Path) -> str:
    with pytest.raises(InputError) as caught:
        read_nanochat(folder)
    said = str(caught.value)
    assert said.startswith(f"{folder / 'model_000020.pt'} is not a file of weights that nanochat wrote (")
    assert said.endswith("): nothing of it was run.")
    assert "\n" not in said
    assert "weights_only" not in said, "torch's advice to load it all the same is not passed on"
    return said


def payloads(mark: Path) -> list[tuple[Any, str]]:
    command = f"mkdir '{mark}'"
    return [
        (Runs(os.system, command), f"it would load {os.name}.system"),
        (Runs(os.mkdir, str(mark)), f"it would load {os.name}.mkdir"),
        (Runs(eval, f"__import__('os').mkdir({str(mark)!r})"), "it would load eval"),
        (Runs(exec, f"import os; os.mkdir({str(mark)!r})"), "it would load exec"),
        (Runs(getattr, Runs(__import__, "os"), "mkdir"), "it would load"),
        (Runs(pickle.loads, pickle.dumps(Runs(os.mkdir, str(mark)))), "it would load"),
        (Runs(torch.load, "elsewhere.pt"), "torch.serialization.load"),
        (Runs(torch.hub.load, "somebody/something", "model"), "torch.hub.load"),
    ]


@pytest.mark.parametrize("number", range(8))
def test_what_would_run_a_program_is_refused(
    folder: Path, mark: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")  # as some set it for other programs
    payload, said = payloads(mark)[number]
    hidden = random_weights(SMALL) | {"lm_head.weight": payload}
    for content in (payload, hidden, OrderedDict(hidden), [payload]):
        torch.save(content, folder / "model_000020.pt")
        assert said in refused(folder)
    assert not mark.exists()


def test_a_program_that_trusts_the_file_would_run_it(folder: Path, mark: Path) -> None:
    """Without which the tests above would show nothing."""
    for number in range(4):
        torch.save([payloads(mark)[number][0]], folder / "model_000020.pt")
        torch.load(folder / "model_000020.pt", weights_only=False)
        mark.rmdir()


@pytest.mark.parametrize("protocol", range(6))
def test_pickles_that_are_no_archive_are_refused(folder: Path, mark: Path, protocol: int) -> None:
    path = folder / "model_000020.pt"
    path.write_bytes(pickle.dumps(Runs(os.mkdir, str(mark)), protocol))
    refused(folder)
    torch.save({"a": Runs(os.mkdir, str(mark))}, path, _use_new_zipfile_serialization=False)
    refused(folder)
    torch.save(random_weights(SMALL), path, _use_new_zipfile_serialization=False)
    refused(folder)
    assert not mark.exists()


def test_a_pickle_inside_the_archive_that_was_exchanged_is_refused(folder: Path, mark: Path) -> None:
    path = folder / "model_000020.pt"
    whole = zipfile.ZipFile(io.BytesIO(path.read_bytes()))
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        with zipfile.ZipFile(path, "w", method) as made:
            for entry in whole.infolist():
                content = whole.read(entry)
                if entry.filename.endswith("data.pkl"):
                    content = pickle.dumps(Runs(os.mkdir, str(mark)), 2)
                made.writestr(entry.filename, content)
        refused(folder)
    assert not mark.exists()


def test_a_script_module_is_refused(folder: Path) -> None:
    torch.jit.script(torch.nn.Linear(2, 2)).save(str(folder / "model_000020.pt"))
    refused(folder)


ODD = {
    "a few bytes that pose as a large tensor": torch.zeros(1).expand(32, 32),
    "sparse": torch.eye(32).to_sparse(),
    "without content": torch.empty(32, 32, device="meta"),
    "whole numbers": torch.ones(32, 32, dtype=torch.int64),
    "complex": torch.ones(32, 32, dtype=torch.complex64),
    "no tensor": "text",
    "nothing": None,
}


@pytest.mark.parametrize("name", ODD)
def test_what_is_no_weight_is_refused(folder: Path, name: str) -> None:
    query = "transformer.h.1.attn.c_q.weight"
    torch.save(random_weights(SMALL) | {query: ODD[name]}, folder / "model_000020.pt")
    assert query in refused(folder)


def test_a_file_cut_short_or_with_a_flipped_bit_is_refused(folder: Path) -> None:
    path = folder / "model_000020.pt"
    whole = path.read_bytes()
    for end in range(0, len(whole), len(whole) // 23):
        path.write_bytes(whole[:end])
        refused(folder)
    seen = 0
    for position in range(40, len(whole), len(whole) // 41):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 0x10]) + whole[position + 1 :])
        try:
            found = read_nanochat(folder).weights
        except InputError:
            seen += 1
        else:  # it hit what nobody reads, such as the padding between two tensors
            assert all(torch.equal(found[name], tensor) for name, tensor in random_weights(SMALL).items())
    assert seen > 30


def test_the_tokenizers_pickle_is_not_run_either(folder: Path, mark: Path) -> None:
    path = folder.parents[1] / "tokenizer" / "tokenizer.pkl"
    path.write_bytes(pickle.dumps(Runs(os.mkdir, str(mark))))
    with pytest.raises(InputError, match=r"not a tokenizer that nanochat wrote .* nothing of it was run"):
        read_nanochat(folder)
    assert not mark.exists()
