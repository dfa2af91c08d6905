"""The small sets, written once."""

from __future__ import annotations

from pathlib import Path

import pytest

from . import fixtures


@pytest.fixture(scope="session")
def authors(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A root in the form of the authors' files."""
    return str(fixtures.as_their_authors_publish(tmp_path_factory.mktemp("authors")))


@pytest.fixture(scope="session")
def hub_form(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A root in the form of the Hub's repositories."""
    return str(fixtures.as_the_hub_has_them(tmp_path_factory.mktemp("hub")))


@pytest.fixture
def words(tmp_path: Path) -> str:
    fixtures.write_text(tmp_path / "words/words_alpha.txt", fixtures.WORDS)
    return str(tmp_path)
