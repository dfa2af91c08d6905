"""What a cut cable does to a run over two nodes, each started by the scripts of examples/multinode."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.conftest import Corpus
from tests.support.nodes import ADDRESSES, CABLE, TwoNodes, UnavailableError
from tests.support.processes import ENVIRONMENT, ROOT
from tests.support.ranks import Ranks
from tests.support.runs import checkpoint_tensors, pretrain, words

TIMEOUT = 30  # seconds that a rank waits for another one: long enough for the start on a busy machine
SETTINGS = {
    "train__steps": "60",
    "checkpoint__every": "10",
    "evaluation__every": "0",
    "evaluation__sample_every": "0",
    "parallel__timeout_minutes": str(TIMEOUT / 60),
}
EARLY, FINAL = (Path("checkpoints") / f"step-000000{step}" for step in (10, 60))


@pytest.fixture
def two_nodes() -> Iterator[TwoNodes]:
    try:
        nodes = TwoNodes()
    except UnavailableError as reason:
        pytest.skip(f"there can be no two nodes here: {reason}")
    yield nodes
    nodes.close()


def run(nodes: TwoNodes, script: str, folder: Path, overrides: list[str]) -> list[Path]:
    """Starts the demo with a script of examples/multinode, a rank on each node; returns where each one's words go."""
    hostfile = folder / "hostfile"
    hostfile.write_text("".join(f"{address} slots=1\n" for address in ADDRESSES))
    environment = {
        **ENVIRONMENT,
        "DS_ACCELERATOR": "cpu",
        "GLOO_SOCKET_IFNAME": CABLE,
        "HOSTFILE": str(hostfile),
        "MASTER_ADDR": ADDRESSES[0],
        "NODES": "2",
        "RANKS": "1",
    }
    said = [folder / f"{script}-{node}" for node in (0, 1)]
    for node in (0, 1):
        command = ["bash", f"examples/multinode/{script}", "examples/demo.sh", *overrides]
        nodes.start(node, command, said[node], ROOT, {**environment, "NODE_RANK": str(node)})
    return said


@pytest.mark.full
def test_a_cut_cable_is_named_on_both_nodes_and_the_resumed_run_ends_as_an_undisturbed_one(
    two_nodes: TwoNodes, two_ranks: Ranks, tmp_path: Path, corpus: Corpus
) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    said = run(two_nodes, "no_ssh.sh", tmp_path, words(corpus, cut, **SETTINGS))
    while not (cut / EARLY).exists():
        assert not any(process.poll() for process in two_nodes.processes), both_said(said)
        time.sleep(0.02)
    two_nodes.cut()
    assert 0 not in two_nodes.exit_codes(within=TIMEOUT + 40)
    assert two_nodes.alive() == []
    assert not (cut / FINAL).exists(), "cut too late to tell anything"
    for node, output in enumerate(said):
        assert f"error: the run was ended: rank {1 - node} gave no sign of life for" in output.read_text()

    two_nodes.restore()
    said = run(two_nodes, "torchrun.sh", tmp_path, [*words(corpus, cut, **SETTINGS), "--run.resume"])
    assert two_nodes.exit_codes(within=120) == [0, 0], both_said(said)

    assert two_ranks(pretrain, words(corpus, whole, **SETTINGS)) == [0, 0]
    wanted, found = (checkpoint_tensors(folder / FINAL) for folder in (whole, cut))
    assert wanted.keys() == found.keys()
    assert [name for name in wanted if not torch.equal(wanted[name], found[name])] == []


def both_said(said: list[Path]) -> str:
    return "\n".join(output.read_text() for output in said)
