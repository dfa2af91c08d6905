"""Published sets are fetched whole and verified, are resumed after a stop, and say what to do when they can't."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from megatron_iberis.hub import SETS
from tests.support.hub import Hub

from .conftest import ROOT, Command

Download = Callable[..., "subprocess.CompletedProcess[str]"]
SHARDS = [f"shard_{i:05}.parquet" for i in range(4)]
NAME = "fineweb-edu-100b-shuffle"


@pytest.fixture
def hub() -> Iterator[Hub]:
    content = random.Random(0)
    files = {"README.md": b"# card"} | {path: content.randbytes(200_000) for path in reversed(SHARDS)}
    with Hub(SETS[NAME].repository, files) as hub:
        yield hub


@pytest.fixture
def environment(hub: Hub, tmp_path: Path) -> dict[str, str]:
    return {"HF_HOME": str(tmp_path / "home"), "HF_ENDPOINT": hub.url, "HF_HUB_DISABLE_XET": "1"}


@pytest.fixture
def download(command: Command, environment: dict[str, str]) -> Download:
    def run(*arguments: object, **changes: str) -> subprocess.CompletedProcess[str]:
        return command("download.py", *arguments, **{**environment, **changes})

    return run


def fetched(folder: Path, hub: Hub) -> list[str]:
    """The shards in `folder`, each of which must be right."""
    found = sorted(p.name for p in folder.glob("*.parquet"))
    assert all((folder / name).read_bytes() == hub.files[name] for name in found)
    return found


def test_a_set_is_fetched_whole_and_verified(hub: Hub, download: Download, tmp_path: Path) -> None:
    hub.in_git = {SHARDS[3]}
    run = download(NAME, "--output", "here")
    assert run.returncode == 0, run.stderr
    assert fetched(tmp_path / "here", hub) == SHARDS
    assert "4 files, 800,000 bytes" in run.stdout
    assert not (tmp_path / "here/README.md").exists()
    source = json.loads((tmp_path / "here/source.json").read_text())
    assert source == {"repository": hub.repository, "revision": hub.revision, "files": 4}


def test_the_first_shards_come_first_and_more_can_follow(hub: Hub, download: Download, tmp_path: Path) -> None:
    assert download(NAME, "--shards", 2).returncode == 0
    folder = tmp_path / "data" / NAME
    assert fetched(folder, hub) == SHARDS[:2]
    assert download(NAME, "--shards", 3).returncode == 0
    assert fetched(folder, hub) == SHARDS[:3]
    assert [len(hub.sent(path)) for path in SHARDS] == [1, 1, 1, 0]  # nothing twice


def test_a_broken_connection_is_taken_up_in_the_middle_of_the_file(
    hub: Hub, download: Download, tmp_path: Path
) -> None:
    hub.files[SHARDS[1]] = random.Random(1).randbytes(24 << 20)
    hub.cut_after = {SHARDS[1]: 15 << 20}
    run = download(NAME, "--output", "here")
    assert run.returncode == 0, run.stderr
    assert fetched(tmp_path / "here", hub) == SHARDS
    assert hub.sent(SHARDS[1]) == [None, f"bytes={10 << 20}-"]


def test_a_killed_run_keeps_what_it_has(
    hub: Hub, download: Download, environment: dict[str, str], tmp_path: Path
) -> None:
    hub.stall_at = SHARDS[2]
    killed = subprocess.Popen(
        [sys.executable, str(ROOT / "data_tools/download.py"), NAME, "--output", "here"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        stderr=subprocess.DEVNULL,
    )
    assert hub.stalled.wait(60)
    killed.kill()
    killed.wait()
    assert fetched(tmp_path / "here", hub) == SHARDS[:2]
    hub.stall_at = None
    run = download(NAME, "--output", "here")
    assert run.returncode == 0, run.stderr
    assert fetched(tmp_path / "here", hub) == SHARDS
    assert [len(hub.sent(path)) for path in SHARDS] == [1, 1, 2, 1]
    assert list((tmp_path / "here").rglob("*.incomplete")) == []


def test_a_stopped_download_keeps_its_revision(hub: Hub, download: Download, tmp_path: Path) -> None:
    assert download(NAME, "--output", "here", "--shards", 1).returncode == 0
    asked = len(hub.asked)
    run = download(NAME, "--output", "here")
    assert run.returncode == 0, run.stderr
    of_the_set = [path for _, path, _ in hub.asked[asked:] if hub.repository in path]
    assert of_the_set
    assert all(hub.revision in path for path in of_the_set)
    assert fetched(tmp_path / "here", hub) == SHARDS


def test_a_damaged_file_is_fetched_again_and_refused_the_second_time(
    hub: Hub, download: Download, tmp_path: Path
) -> None:
    hub.wrong = {SHARDS[0]: 1}
    assert download(NAME, "--output", "here", "--shards", 1).returncode == 0
    assert fetched(tmp_path / "here", hub) == SHARDS[:1]
    (tmp_path / "here" / SHARDS[0]).write_bytes(b"x" * 200_000)  # on the disk
    assert download(NAME, "--output", "here", "--shards", 1).returncode == 0
    assert fetched(tmp_path / "here", hub) == SHARDS[:1]
    hub.wrong = {SHARDS[1]: 9}
    refused = download(NAME, "--output", "here", "--shards", 2)
    assert refused.returncode == 2
    assert "another hash" in refused.stderr


@pytest.mark.parametrize(
    ("arguments", "changes", "message"),
    [
        (["nothing"], {}, "no data set 'nothing': choose among finedataset-13b-jpen"),
        ([NAME, "--shards", 0], {}, "there can't be 0 shards"),
        (["gsm8k"], {}, "answers 404 for openai/gsm8k: it may want a login: set HF_TOKEN"),
        ([NAME], {"HF_ENDPOINT": "http://127.0.0.1:9"}, "check the network and run the same command again"),
        ([NAME], {"HF_HUB_OFFLINE": "1"}, "check the network and run the same command again"),
    ],
)
def test_what_goes_wrong_is_said_in_one_sentence(
    arguments: list[str], changes: dict[str, str], message: str, download: Download
) -> None:
    run = download(*arguments, **changes)
    assert run.returncode == 2
    assert message in run.stderr
    assert run.stderr.startswith("error: ")
    assert run.stderr.count("\n") == 1


def test_a_folder_of_another_set_is_refused(hub: Hub, download: Download, tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "here/source.json").write_text('{"repository": "some/other", "revision": "2"}')
    run = download(NAME, "--output", "here")
    assert run.returncode == 2
    assert "here holds some/other: choose another folder" in run.stderr
    assert hub.asked == []


def test_without_a_name_the_sets_are_listed(download: Download) -> None:
    run = download()
    assert run.returncode == 0
    assert all(name in run.stdout and known.repository in run.stdout for name, known in SETS.items())
