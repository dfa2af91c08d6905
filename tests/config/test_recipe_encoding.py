"""A recipe that an editor on Windows has saved is read."""

from __future__ import annotations

from pathlib import Path

import pytest

from megatron_iberis.config.recipe import load_recipe


def test_a_byte_order_mark_and_crlf_are_no_part_of_a_recipe(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_bytes(b"\xef\xbb\xbf[train]\r\nsteps = 7\r\n")
    assert load_recipe(str(path)).train.steps == 7
    path.write_bytes("[train]\nsteps = 7\n".encode("utf-16"))
    with pytest.raises(ValueError, match=r"mine\.toml is not valid TOML"):
        load_recipe(str(path))
