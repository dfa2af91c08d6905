"""How token files are named: from what a user writes to the path without .bin and .idx."""

from __future__ import annotations

import os

TRAIN_ENDING = "_text_document"
VALIDATION_ENDING = "_val_text_document"
"""What data_tools/preprocess.py adds to its --output-prefix."""


def token_file_prefix(path: str, *endings: str) -> str:
    """The prefix of the token file that `path` means: "~" is expanded, and .bin or .idx at the end left out.

    `path` may also be what --output-prefix was, to which one of `endings` was added (by default that of the training
    split); the first that there is counts. Where there is no such file, it is the path as written, to be named.
    """
    written = os.path.expanduser(path)
    bare = written.removesuffix(".bin").removesuffix(".idx")
    names = [written, bare, *(bare + ending for ending in endings or (TRAIN_ENDING,))]
    return next((name for name in names if os.path.exists(name + ".idx")), bare)


def is_token_file(path: str) -> bool:
    """Whether `path` means a token file that is there."""
    return os.path.exists(token_file_prefix(path) + ".idx")
