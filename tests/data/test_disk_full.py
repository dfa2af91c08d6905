"""A disk that fills up under an index: an OSError that names the file and the reason, and nothing is left behind.

What users see of it is tested where whole commands run (`tests/text/test_resume.py`, `test_merge.py`).
"""

import contextlib
import errno
import resource

import numpy as np
import pytest

from megatron_iberis import _C


@contextlib.contextmanager
def files_of_at_most(size):
    """The limit of the file size stands for the disk, so that this runs everywhere."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize(
    ("documents", "limit", "full_at"),
    [
        (300_000, 1_000_000, "add"),  # the borders of documents
        (600_000, 5_000_000, "finish"),  # the offsets: all else would fit
        (50_000, 300_000, "finish"),  # what was still in the buffer
    ],
)
def test_a_full_disk_is_named_and_leaves_nothing(tmp_path, documents, limit, full_at):
    writer = _C.IndexWriter(tmp_path / "f.idx", 8)
    steps = {"add": lambda: writer.add(np.ones(documents, np.int64)), "finish": writer.finish}
    with files_of_at_most(limit):
        if full_at == "finish":
            steps["add"]()
        with pytest.raises(OSError, match="File too large") as caught:
            steps[full_at]()
    assert caught.value.errno == errno.EFBIG
    assert caught.value.filename == str(tmp_path / "f.idx")
    for use in steps.values():  # it can never be finished with a hole in it
        with pytest.raises(ValueError, match="is closed: start a new writer"):
            use()
    writer.abort()
    assert list(tmp_path.iterdir()) == []


def test_enough_space_is_enough(tmp_path):
    """The same without the limit: it is the limit that the test above is about."""
    writer = _C.IndexWriter(tmp_path / "f.idx", 8)
    writer.add(np.ones(600_000, np.int64))
    writer.finish()
    assert (tmp_path / "f.idx").stat().st_size == 34 + 20 * 600_000 + 8
