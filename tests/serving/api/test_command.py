"""`iberis serve` as a user starts and ends it."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from megatron_iberis.cli import main
from tests.conftest import Corpus
from tests.support.ranks import Ranks
from tests.support.runs import pretrain, words
from tests.support.typed import ROOT

BARE = {"evaluation__every": "0", "evaluation__sample_every": "0", "evaluation__tokens": "64", "train__steps": "1"}
IBERIS = [sys.executable, "-c", "import sys; from megatron_iberis.cli import main; sys.exit(main())"]


@pytest.fixture(scope="module")
def run_folder(one_rank: Ranks, tmp_path_factory: pytest.TempPathFactory, corpus: Corpus) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "first"
    settings = {**BARE, "run__stage": "chat", "model__sequence_length": "128"}
    assert one_rank(pretrain, words(corpus, folder, **settings)) == [0]
    return folder


def test_it_serves_a_run_until_sigterm_ends_it(run_folder: Path) -> None:
    command = [*IBERIS, "serve", "--checkpoint", str(run_folder), "--port", "0"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    server = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8"
    )
    try:
        assert server.stdout is not None
        line = server.stdout.readline()
        found = re.match(r"first at http://127\.0\.0\.1:(\d+) ", line)
        assert found, line
        answers = http.client.HTTPConnection("127.0.0.1", int(found[1]), timeout=60)
        status = 503
        while status == 503:  # it is being loaded
            answers.request("GET", "/health")
            response = answers.getresponse()
            status, _ = response.status, response.read()
        body = {"messages": [{"role": "user", "content": "月は"}], "max_tokens": 4, "model": "first"}
        answers.request("POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"})
        assert json.loads(answers.getresponse().read())["usage"]["completion_tokens"] > 0
        server.send_signal(signal.SIGTERM)
        _, said = server.communicate(timeout=30)
    finally:
        server.kill()
    assert server.returncode == 143
    assert "is ready: context 128 tokens" in said
    assert "/v1/chat/completions: 1 of 1 answers" in said
    assert "Traceback" not in said
    assert "月" not in said


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--checkpoint", "nowhere"], "error: nowhere"),
        (["--max-requests", "0"], "error: serve.max_requests is 0"),
        (["--time-limit", "-1"], "error: serve.time_limit is -1"),
        (["--state-memory", "0"], "error: --state-memory is 0"),
        (["--prefill-tokens", "0"], "error: --prefill-tokens is 0"),
        (["--host", "no.such.host.invalid"], "error: there is no host 'no.such.host.invalid'"),
        (["--port", "70000"], "error: --port is 70000"),
    ],
)
def test_a_mistake_is_a_sentence_and_exit_code_2(
    run_folder: Path, capsys: pytest.CaptureFixture[str], options: list[str], said: str
) -> None:
    assert main(["serve", "--checkpoint", str(run_folder), "--port", "0", *options]) == 2
    told = capsys.readouterr().err.splitlines()
    assert told[-1].startswith(said)


def test_a_port_that_is_taken_is_told(run_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert main(["serve", "--checkpoint", str(run_folder), "--port", port]) == 2
    assert "choose another" in capsys.readouterr().err


def test_without_the_extra_it_says_what_to_install(
    run_folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.startswith(("megatron_iberis.serving.api.", "uvicorn"))]:
        if not name.endswith("commands"):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert main(["serve", "--checkpoint", str(run_folder)]) == 2
    assert capsys.readouterr().err == "error: iberis serve needs uvicorn: pip install 'megatron_iberis[serve]'.\n"
