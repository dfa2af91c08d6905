"""The language model evaluation harness asks the server, and gets what it gets from the exported model itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from megatron_iberis.checkpoint.weights_only import save_weights
from megatron_iberis.convert.huggingface.export import export
from megatron_iberis.inference.load import load_model
from tests.support.decoding import random_weights
from tests.support.server import opener, serving, tiny_model

pytestmark = pytest.mark.full
CHOICE = """
task: ferry
dataset_path: json
dataset_kwargs:
  data_files:
    test: {data}
test_split: test
output_type: multiple_choice
target_delimiter: ""
doc_to_text: "{{{{question}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: answer
metric_list:
  - metric: acc
"""
CONTINUATION = """
task: continue
dataset_path: json
dataset_kwargs:
  data_files:
    test: {data}
test_split: test
output_type: generate_until
doc_to_text: "{{{{question}}}}"
doc_to_target: answer
generation_kwargs:
  until: ["\\n", "e"]
  max_gen_toks: 12
  do_sample: false
metric_list:
  - metric: exact_match
"""
ROWS: list[dict[str, Any]] = [
    {"question": "The ferry leaves the harbour at", "choices": [" half past six", " dawn", " noon."], "answer": 0},
    {"question": "朝の港では、", "choices": ["漁師たちが網を", "雨", "She opened"], "answer": 1},
    {"question": "x", "choices": ["y", "zz", " the walnut tree"], "answer": 2},
    {"question": "駅前の小さな店で", "choices": ["、", "😀"], "answer": 1},
]


def results(model: str, arguments: str, folder: Path) -> dict[tuple[str, int], Any]:
    """(task, row) -> what the harness has found."""
    folder.mkdir()
    command = [sys.executable, "-m", "lm_eval", "run", "--model", model, "--model_args", arguments]
    command += ["--tasks", "ferry,continue", "--include_path", str(folder.parent / "tasks"), "--batch_size", "3"]
    command += ["--log_samples", "--device", "cpu", "--output_path", str(folder)]
    apart = {"HF_MODULES_CACHE": str(folder / "modules"), "HF_HOME": str(folder / "home"), "HF_HUB_OFFLINE": "1"}
    environment = {
        **os.environ,
        **apart,
        "CUDA_VISIBLE_DEVICES": "",
        "OMP_NUM_THREADS": "1",
        "OPENAI_API_KEY": "none",
    }
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    found = {}
    for path in folder.rglob("samples_*.jsonl"):
        task = "ferry" if "ferry" in path.name else "continue"
        for line in path.read_text().splitlines():
            sample = json.loads(line)
            found[task, sample["doc_id"]] = sample["filtered_resps"]
    assert len(found) == 2 * len(ROWS)
    return found


def test_the_harness_finds_the_same_by_the_server_as_by_the_export(tmp_path: Path) -> None:
    model = tiny_model()
    recipe = replace(model.recipe, run=replace(model.recipe.run, folder="runs/small"))
    weights = random_weights(recipe.model)
    # Never the likeliest: the two libraries spell bytes that are no UTF-8 in different ways.
    weights["lm_head.weight"][[i for i in range(480) if len(model.tokenizer.decode_bytes([i])) == 1]] = 0
    save_weights(tmp_path / "checkpoint", recipe, model.tokenizer, weights, 7, "a test")
    export(tmp_path / "checkpoint", tmp_path / "export", "fp32", 2**30)
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    (tmp_path / "tasks").mkdir()
    for name, task in (("ferry", CHOICE), ("continue", CONTINUATION)):
        (tmp_path / "tasks" / f"{name}.yaml").write_text(task.format(data=tmp_path / "rows.jsonl"))
    exported = f"{tmp_path / 'export'}"
    theirs = results("hf", f"pretrained={exported},trust_remote_code=True,dtype=float32", tmp_path / "hf")
    with serving(opener(load_model(tmp_path / "checkpoint", "fp32", "cpu"))) as server:
        arguments = f"base_url={server.base_url}/completions,model=tiny,tokenizer={exported},trust_remote_code=True"
        ours = results(
            "local-completions",
            f"{arguments},num_concurrent=2,max_length=256,add_bos_token=True",
            tmp_path / "served",
        )
    for (task, row), found in theirs.items():
        if task == "continue":
            assert ours[task, row] == found
            continue
        for (likelihood, greedy), (their_likelihood, their_greedy) in zip(ours[task, row], found, strict=True):
            assert float(likelihood) == pytest.approx(float(their_likelihood), abs=1e-3)
            assert greedy == their_greedy
