"""A bilingual text written for these tests, and tokenizers trained on it once."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from megatron_iberis.tokenizer import Tokenizer, train

ROOT = Path(__file__).parents[2]
VOCAB_SIZE = 480
PARAGRAPHS = (
    "The ferry leaves the harbour at half past six, and whoever misses it must wait until the tide turns.",
    "Nobody in the village remembered who had planted the walnut tree, but everyone had climbed it once.",
    "She opened the notebook, wrote down the date, the wind and the height of the water, and closed it again.",
    "“Is there any soup left?” he asked.\n\n“There is, but it's cold, and the bread was eaten at noon.”",
    "def area(width, height):\n    if width < 0:\n        return None\n    return width * height\n\n\n",
    "name\tcount\tprice\nplums\t12\t340\npears\t7\t1250\n",
    "朝の港では、漁師たちが網をたたみながら天気の話をしていた。風は北から吹き、波は静かだった。",
    "「この坂を上ると、古い図書館がありますか。」\n「ええ、赤い屋根の建物です。すぐにわかりますよ。」",
    "駅前の小さな店で、祖母はいつも豆腐と大根を買い、帰り道に近所の猫へ声をかけた。",
    "　二〇二四年の夏はとても暑く、７月の平均気温は31.5度に達した。電車は15分遅れて到着した。",
    "コーヒーとケーキを注文して、窓際の席に座った。外では雨が降り始め、傘の列が動いていく。",
)


def sample_texts() -> list[str]:
    """Documents with some variety: every paragraph beside every other, numbered."""
    return [
        f"{number}. {first}\n\n{second}\n"
        for number, (first, second) in enumerate((a, b) for a in PARAGRAPHS for b in PARAGRAPHS)
    ]


@pytest.fixture(scope="session", params=["bpe", "unigram"])
def tokenizer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder = tmp_path_factory.mktemp(request.param) / "tokenizer"
    train(sample_texts(), VOCAB_SIZE, folder, kind=request.param)
    return Tokenizer.load(folder)


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "tokenizer"


Command = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def command(tmp_path: Path) -> Command:
    """Runs a program of data_tools/ as a user would, in `tmp_path`; `environment` is added to the present one."""

    def run(tool: str, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, str(ROOT / "data_tools" / tool), *map(str, arguments)],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
            capture_output=True,
            text=True,
            timeout=120,
        )

    return run
