"""What a run was trained on: token files, conversations, pairs or prompts, and what became of them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from megatron_iberis.checkpoint import files
from megatron_iberis.data.order.blending import Part, read_mixture
from megatron_iberis.data.token_files.names import token_file_prefix
from megatron_iberis.errors import InputError
from megatron_iberis.report.records import Fields, Run


@dataclass(frozen=True)
class TokenFile:
    """A token file of pretraining, by its name alone; what could be found out about it, else empty.

    read: documents of its input; left_out: how many of those, and why; sources: tokens by the input's file names.
    """

    name: str
    weight: float | None
    counts: Fields = field(default_factory=dict)
    read: int | None = None
    left_out: Mapping[str, int] = field(default_factory=dict)
    sources: Mapping[str, Fields] = field(default_factory=dict)


def token_files(run: Run) -> list[TokenFile]:
    """Of data.train. Their manifests are read where they still lie where the recipe says."""
    if not run.recipe.data.train:
        return []
    try:
        parts = read_mixture(run.recipe.data.train)
    except InputError:
        parts = [Part(run.recipe.data.train, None, run.recipe.data.train)]
    recorded = _recorded(run)
    return [_token_file(part, recorded) for part in parts]


def _token_file(part: Part, recorded: Mapping[str, Fields]) -> TokenFile:
    prefix = token_file_prefix(part.path)
    name, weight = Path(prefix).name, float(part.weight) if part.weight else None
    try:
        manifest = json.loads(Path(prefix + ".json").read_bytes())
        told, left = manifest.get("input") or {}, dict[str, int]()
        for reason in ("empty", "too_short", "duplicates"):
            left[reason.replace("_", " ")] = int(told.get(reason) or 0)
        for reason, count in (told.get("rejected") or {}).items():
            left[str(reason)] = int(count if isinstance(count, int) else count.get("count", 0))
        sources = {Path(path).name: counts for path, counts in (manifest.get("files") or {}).items()}
        left = {reason: count for reason, count in left.items() if count}
        return TokenFile(name, weight, manifest, told.get("read"), left, sources)
    except (OSError, ValueError, TypeError, AttributeError):
        known = {Path(path).name: counts for path, counts in recorded.items()}
        return TokenFile(name, weight, known.get(name, {}))


def _recorded(run: Run) -> Mapping[str, Any]:
    """What the newest checkpoint remembers of the token files."""
    folder = run.folder.checkpoints
    for step in reversed(files.steps_in(folder)):
        try:
            state = json.loads((folder / files.name_of(step) / files.STATE).read_bytes())
            return dict(state.get("token_files") or {})
        except (OSError, ValueError, TypeError, AttributeError):
            continue
    return {}


def counted(run: Run, group: str) -> dict[str, Fields]:
    """The counts by source that the log holds under GROUP/SOURCE, of the start of the run."""
    return {
        name.partition("/")[2]: lines[0]
        for name, lines in run.log.figures.items()
        if name.partition("/")[0] == group and name.partition("/")[2]
    }


_WORDS = {"en": ("en", "eng", "english"), "ja": ("ja", "jp", "jpn", "japanese")}


def told_languages(run: Run) -> list[str]:
    """Of what a run was trained on, as far as the names of its data or their settings tell."""
    found = {str(source.settings.get("language")) for source in run.recipe.tasks.mixture.values()} & set(_WORDS)
    files = token_files(run)
    for name in (*(file.name for file in files), *(name for file in files for name in file.sources)):
        found |= languages_in(name)
    for name in run.recipe.tasks.mixture:
        found |= languages_in(name)
    return sorted(found)


def languages(runs: Sequence[Run]) -> list[str]:
    """Of what all runs were trained on; where nothing tells, of what the model was measured on."""
    found = {language for run in runs for language in told_languages(run)}
    if not found:
        settings = [scored.measure.settings for run in runs for scored in run.evaluations.all]
        found = {str(each["language"]) for each in settings if each.get("language") in _WORDS}
    return sorted(found)


def languages_in(name: str) -> set[str]:
    """The languages that a name speaks of: "ja_en_text_document"."""
    words = re.split(r"[\W_]+", name.lower())
    return {language for language, own in _WORDS.items() if any(word in own for word in words)}
