"""Without a root a task's files are fetched by name, once, and verified; never when tasks are imported."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from megatron_iberis import hub
from megatron_iberis.errors import InputError
from megatron_iberis.tasks import open_task
from tests.support.hub import Hub

from .fixtures import MMLU, WORDS, write_lines, write_parquet, write_text

OPEN = "from megatron_iberis.tasks import open_task; task = open_task('mmlu'); print(len(task), task[0].where)"


def test_a_task_is_fetched_from_the_hub_once(tmp_path: Path) -> None:
    name = "all/test-00000-of-00001.parquet"
    files = {name: write_parquet(tmp_path / "made.parquet", MMLU).read_bytes()}
    with Hub(hub.SETS["mmlu"].repository, files) as served:
        environment = {
            **os.environ,
            "HF_HOME": str(tmp_path / "home"),
            "HF_ENDPOINT": served.url,
            "HF_HUB_DISABLE_XET": "1",
            "IBERIS_DATA": str(tmp_path / "data"),
        }
        run = partial(
            subprocess.Popen, [sys.executable, "-c", OPEN], env=environment, stdout=subprocess.PIPE, text=True
        )
        said = [process.communicate()[0].strip() for process in [run(), run()]]
    assert said == [f"1 {tmp_path / 'data/mmlu' / name}:1"] * 2
    assert len(served.sent(name)) == 1


@contextmanager
def github(folder: Path) -> Iterator[str]:
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def pinned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The word list as it lies in a stand-in for GitHub."""
    content = WORDS.encode()
    digest = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    published = hub.PublishedSet("a/b", "words", commit="c0", pinned=(("words_alpha.txt", digest),))
    monkeypatch.setitem(hub.SETS, "words", published)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("IBERIS_DATA", raising=False)
    path = write_text(tmp_path / "web/a/b/c0/words_alpha.txt", WORDS)
    with github(tmp_path / "web") as address:
        monkeypatch.setattr(hub, "GITHUB", address)
        yield path


def test_words_are_fetched_at_one_commit_and_kept(pinned: Path) -> None:
    row = open_task("spelling-bee", "train")[0]
    assert row.where.startswith("data/words/words_alpha.txt:")
    pinned.unlink()
    assert open_task("spelling-bee", "train")[0] == row


def test_a_file_of_another_content_is_refused(pinned: Path) -> None:
    pinned.write_text("cuckoo")
    with pytest.raises(InputError, match=r"words_alpha.txt of a/b came with another hash: try again later"):
        open_task("spelling-bee")
    assert not Path("data/words/words_alpha.txt").exists()


def test_a_file_that_cannot_be_fetched_is_said(pinned: Path) -> None:
    pinned.unlink()
    with pytest.raises(InputError, match=r"cannot be fetched .*check the network"):
        open_task("spelling-bee")


def test_files_that_were_downloaded_before_are_found_without_a_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("IBERIS_DATA", raising=False)
    write_lines(tmp_path / "data/mmlu/test.jsonl", MMLU)
    assert open_task("mmlu")[0].where == "data/mmlu/test.jsonl:1"


def test_every_task_but_the_identity_can_be_fetched() -> None:
    from megatron_iberis.tasks import code, conversations, japanese, knowledge, mathematics, spelling

    rooms = (code, japanese, knowledge, mathematics)
    places = [task.place for room in rooms for task in room.TASKS.values()]
    places += [conversations._SMOLTALK, conversations._SMOLTALK_JA, spelling._PLACE]
    assert {place.published for place in places} <= hub.SETS.keys()
