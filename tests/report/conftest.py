"""All five stages of one small model, evaluated as far as a real one is."""

from __future__ import annotations

from pathlib import Path

import pytest

from megatron_iberis.monitor.events import SampleText
from tests.support.reported import (
    events_of,
    measure,
    recipe_of,
    text_measure,
    write_evaluation,
    write_manifest,
    write_run,
)

STAGES = ("base", "mid", "sft", "dpo", "rl")
CHAT_CORE = {"arc-easy": 0.4, "arc-challenge": 0.27, "mmlu": 0.26}
SAMPLES = {
    "base": [SampleText("The sea", " is blue."), SampleText("日本の首都は", "東京です。")],
    "sft": [SampleText("Hello?", "Hello.")],
}


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The stages' folders by stage."""
    root, found = tmp_path_factory.mktemp("runs"), dict[str, Path]()
    write_manifest(
        root / "data/en_text_document",
        {"documents": 100, "tokens": 65536, "text_tokens": 65000, "text_bytes": 250000},
        {"/home/me/books.jsonl.zst": {"documents": 100, "tokens": 65536}},
    )
    for stage in STAGES:
        words = [f"--data.train={root}/data/en_text_document"] if stage == "base" else []
        recipe = recipe_of(stage, root / stage, found.get(STAGES[STAGES.index(stage) - 1]), *words)
        found[stage] = write_run(recipe, events_of(stage), SAMPLES.get(stage, ()))
    japanese = [
        measure("jcommonsenseqa", 0.35, 400, 0.2, language="ja", kind="answer text"),
        measure("xwinograd-ja", 0.52, 400, 0.5, language="ja", kind="schema"),
        measure("jsquad", 0.2, 400, 0.0, language="ja", kind="short answer"),
        measure("niilc", 0.001, 400, 0.0, language="ja", kind="short answer"),
    ]
    core = [measure("copa", 0.6, 100, 0.5, kind="multiple_choice", baseline_v1=0.5)]
    write_evaluation(found["base"], "base", [*japanese, *core, text_measure("en", 1.25)], limit=400)
    chat = [measure(name, score, 1000) for name, score in CHAT_CORE.items()]
    chat += [measure("gsm8k", 0.03, 1000, 0.0, kind="generation"), measure("spelling-bee", 0.9, 200, 0.0)]
    chat += [measure("humaneval", 0.02, 164, 0.0, sandbox="full")]
    chat += [measure("jcommonsenseqa", 0.21, 400, 0.2, language="ja")]
    write_evaluation(found["sft"], "chat", chat)
    return found
