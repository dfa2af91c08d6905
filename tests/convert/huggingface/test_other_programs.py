"""Programs of others take an export as it is: `transformers serve`, and the language model evaluation harness."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import torch

from megatron_iberis.model.reference import ReferenceIberis

from .conftest import likeliest, logits_of

pytestmark = pytest.mark.full
BIN = Path(sys.executable).parent
TASK = """
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


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    apart = {"HF_MODULES_CACHE": str(tmp_path / "modules"), "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1"}
    return os.environ | apart | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}


def ask(address: str, body: dict[str, Any] | None = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(address, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.loads(answer.read())


def test_transformers_serve_answers(
    exported: Path, theirs: Any, reference: ReferenceIberis, environment: dict[str, str], tmp_path: Path
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [BIN / "transformers", "serve", exported, "--trust-remote-code", "--device", "cpu"]
    with (tmp_path / "log").open("w") as log:
        server = subprocess.Popen(
            [*map(str, command), "--host", "127.0.0.1", "--port", str(port)], env=environment, stdout=log, stderr=log
        )
        try:
            address = f"http://127.0.0.1:{port}"
            started = time.monotonic()
            while True:
                try:
                    ask(f"{address}/health")
                    break
                except (urllib.error.URLError, ConnectionError):
                    assert server.poll() is None, (tmp_path / "log").read_text()
                    assert time.monotonic() - started < 120
                    time.sleep(0.3)
            messages = [{"role": "user", "content": "Is there soup?"}]
            body = {"model": str(exported), "messages": messages, "max_tokens": 6, "temperature": 0}
            said = ask(f"{address}/v1/chat/completions", body)["choices"][0]["message"]["content"]
        finally:
            server.terminate()
            server.wait(timeout=30)
    ids = theirs.apply_chat_template(messages, add_generation_prompt=True)["input_ids"]
    assert said == theirs.decode(likeliest(reference, ids, 6, (5, 1)), skip_special_tokens=True)


def test_the_evaluation_harness_measures_it(
    exported: Path, theirs: Any, reference: ReferenceIberis, environment: dict[str, str], tmp_path: Path
) -> None:
    rows = [
        {
            "question": "The ferry leaves the harbour at",
            "choices": [" half past six", " dawn", " noon."],
            "answer": 0,
        },
        {"question": "朝の港では、", "choices": ["漁師たちが網を", "雨", "She opened"], "answer": 1},
        {"question": "x", "choices": ["y", "zz", " the walnut tree"], "answer": 2},
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    tasks = tmp_path / "tasks"
    tasks.mkdir()
    (tasks / "ferry.yaml").write_text(TASK.format(data=tmp_path / "rows.jsonl"))
    arguments = f"pretrained={exported},trust_remote_code=True,dtype=float32"
    command = [sys.executable, "-m", "lm_eval", "run", "--model", "hf", "--model_args", arguments, "--tasks", "ferry"]
    command += ["--include_path", str(tasks), "--device", "cpu", "--batch_size", "4", "--log_samples"]
    done = subprocess.run(
        [*command, "--output_path", str(tmp_path / "out")],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    samples = next((tmp_path / "out").rglob("samples_ferry*.jsonl")).read_text().splitlines()
    assert len(samples) == len(rows)
    for sample in map(json.loads, samples):
        row = sample["doc"]
        for choice, (found, _) in zip(row["choices"], sample["filtered_resps"], strict=True):
            prompt = theirs(row["question"])["input_ids"]
            whole = theirs(row["question"] + choice)["input_ids"]
            likelihood = logits_of(reference, whole).log_softmax(-1)[:-1]
            added = torch.tensor(whole[1:]).unsqueeze(1)
            wanted = likelihood.gather(1, added)[len(prompt) - 1 :].sum()
            assert float(found) == pytest.approx(float(wanted), abs=1e-3)
