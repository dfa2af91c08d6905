"""A disk that fills up ends in one sentence, with nothing new under a final name and no temporary file left."""

import os
import resource
import shutil
import subprocess
import sys

import pytest

from megatron_iberis.data.token_files.reader import TokenFile, TokenFileWriter

# Writes `rounds` times 100,000 documents; prints what it is told when that fails.
PROGRAM = """
import resource, sys, numpy as np
from megatron_iberis.data.token_files.reader import TokenFileWriter
prefix, rounds, length, limit = sys.argv[1], *map(int, sys.argv[2:])
if limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
try:
    writer = TokenFileWriter(prefix, 1000)
    for _ in range(rounds):
        writer.add_documents(np.ones(100_000 * length, np.int64), np.full(100_000, length))
    print("finalizing")
    writer.finalize({"made": "now"})
except ValueError as error:
    print(error)
"""


def fill(prefix, rounds, length, limit):
    command = [sys.executable, "-c", PROGRAM, str(prefix), str(rounds), str(length), str(limit)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")
    return result.stdout


def older_file(folder):
    with TokenFileWriter(folder / "f", 1000) as writer:
        writer.add_document([1, 2])
        writer.finalize({"made": "before"})


def assert_only_the_older_file(folder):
    assert sorted(os.listdir(folder)) == ["f.bin", "f.idx", "f.json"]
    file = TokenFile(folder / "f")
    assert file[0].tolist() == [1, 2]
    assert file.manifest == {"made": "before"}


@pytest.mark.parametrize(
    ("rounds", "length", "limit", "finalizing"),
    [
        (4, 20, 6_000_000, False),  # tokens, while documents are added
        (4, 1, 1_500_000, False),  # lengths of documents, while they are added
        (1, 4, 700_000, True),  # the last tokens, which were still in the buffer
        (1, 1, 700_000, True),  # the index, when it is completed
    ],
)
def test_disk_full_leaves_nothing(tmp_path, rounds, length, limit, finalizing):
    """Every write may fail: here the limit of the file size stands for the disk, so that it runs everywhere."""
    older_file(tmp_path)
    said = fill(tmp_path / "f", rounds, length, limit)
    assert ("finalizing" in said) == finalizing
    assert f"cannot write {tmp_path}/f.bin (File too large): at least " in said
    assert "free space or choose another folder" in said
    assert_only_the_older_file(tmp_path)


def test_full_file_system_is_named(tmp_path):
    mount, umount = shutil.which("mount"), shutil.which("umount")
    if os.geteuid() != 0 or not mount or not umount:
        pytest.skip("mounting a small file system needs root")
    if subprocess.run([mount, "-t", "tmpfs", "-o", "size=1m", "none", tmp_path], capture_output=True).returncode:
        pytest.skip("this machine does not allow a mount")
    try:
        older_file(tmp_path)
        said = fill(tmp_path / "f", 4, 20, 0)
        assert f"cannot write {tmp_path}/f.bin: the disk is full (0.0 GiB free): at least " in said
        assert_only_the_older_file(tmp_path)
    finally:
        subprocess.run([umount, tmp_path], check=True)


def test_enough_space_is_enough(tmp_path):
    """The same program without a limit: it is the limit that the tests above are about."""
    assert fill(tmp_path / "f", 1, 4, resource.RLIM_INFINITY) == "finalizing\n"
    assert TokenFile(tmp_path / "f").num_tokens == 400_000
