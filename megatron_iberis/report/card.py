"""The front matter of the report, by which it is a model card: languages, licence, the scores as a model index."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from megatron_iberis.config.stage import identity_of
from megatron_iberis.report.data import languages
from megatron_iberis.report.records import Run

LICENSE = "mit"
TAGS = ("saint-iberis", "hybrid", "custom_code")
_METRICS = {"jsquad": "f1", "niilc": "f1", "humaneval": "pass@1", "jhumaneval": "pass@1"}
_SUMMARIES = {
    "core": ("CORE v1", "v1", "v1_standard_error"),
    "japanese": ("JA mean", "score", "standard_error"),
    "chat_core": ("ChatCORE", "score", "standard_error"),
}


def card_values(runs: Sequence[Run], name: str) -> dict[str, Any]:
    """What stands between the two lines of dashes."""
    tongues = languages(runs)
    values: dict[str, Any] = {"language": tongues} if tongues else {}
    values |= {
        "license": LICENSE,
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": list(TAGS),
    }
    results = next((found for run in reversed(runs) if (found := [result for _, result in index_results(run)])), [])
    return values | ({"model-index": [{"name": name, "results": results}]} if results else {})


def index_results(run: Run) -> list[tuple[int, dict[str, Any]]]:
    """A run's scores in the form of a model index, from 0 to 1 as other cards give them, each with its step."""
    found: list[tuple[int, dict[str, Any]]] = []
    for kind, tasks in run.evaluations.tasks.items():
        how = {"base": "as text that goes on", "chat": "in conversation"}[kind] + f", after {run.label}"
        for name, scored in tasks.items():
            measure = scored.measure
            if "baseline_v1" in measure.settings:
                continue  # of CORE's tasks the index has the mean
            if measure.score is not None:
                error = f"standard error {measure.error or 0.0:.4f}, n {measure.n}, chance {measure.chance:.3f}"
                metric = _METRICS.get(name, "accuracy")
                found.append((scored.step, _result(name, kind, metric, measure.score, f"{metric}, {how} ({error})")))
            elif measure.bits_per_byte is not None:
                found.append(
                    (scored.step, _result(name, kind, "bits_per_byte", measure.bits_per_byte, "bits per byte"))
                )
    for name, summary in run.evaluations.summaries().items():
        title, value, error = _SUMMARIES[name]
        named = summary["name"] if name == "core" else title
        label = f"{named}, centred, after {run.label} (standard error {summary[error]:.4f})"
        found.append((summary["step"], _result(title, name, "centred_accuracy", summary[value], label)))
    return found


def _result(task: str, kind: str, metric: str, value: float, label: str) -> dict[str, Any]:
    plain = re.sub(r"[^\w.-]+", "-", task).strip("-") or "task"
    return {
        "task": {"type": "text-generation", "name": "Text generation"},
        "dataset": {"name": f"{task} ({kind})" if kind in ("base", "chat") else task, "type": plain},
        "metrics": [{"type": metric, "value": round(float(value), 6), "name": label}],
    }


def facts(runs: Sequence[Run], name: str, pictures: Sequence[str]) -> Mapping[str, Any]:
    """report.json: what `iberis convert to-hf --report` has to know of the report."""
    return {
        "format": 1,
        "name": name,
        "pictures": list(pictures),
        "runs": [
            {
                "label": run.label,
                "stage": run.stage,
                "identity": identity_of(run.recipe),
                "steps": run.steps,
                "results": [{"step": step, "result": result} for step, result in index_results(run)],
            }
            for run in runs
        ],
    }
