"""What an evaluation says: a table of 80 columns, with errors and chance, and result.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from megatron_iberis import __version__
from megatron_iberis.evaluation.benchmark import Measure
from megatron_iberis.evaluation.chat import summarise_chat
from megatron_iberis.evaluation.core import summarise_core
from megatron_iberis.evaluation.japanese import summarise_japanese

HEADER = f"{'task':<34}{'score':>8}{'+- SE':>8}{'chance':>8}{'n':>8}  {'bits/byte':>10}"
FOOT = "Scores, errors and chance x 100. ~: within two errors of chance, no better known"


def row(measure: Measure) -> str:
    """A benchmark's line of the table."""
    score = error = chance = ""
    if measure.score is not None:
        score, chance = f"{100 * measure.score:.2f}", f"{100 * measure.chance:.1f}"
        error = f"{100 * (measure.error or 0.0):.2f}"
    bits = "" if measure.bits_per_byte is None else f"{measure.bits_per_byte:.4f}"
    mark = "~" if measure.at_chance else " "
    line = f"{_cut(measure.name):<34}{score:>8}{error:>8}{chance:>8}{measure.n:>8}{mark} {bits:>10}"
    others = [("answers balanced", measure.balanced)] if measure.balanced is not None else []
    lines = [
        f"{'  the same, ' + name.replace('_', ' '):<34}{100 * value:>8.2f}"
        for name, value in (*others, *measure.others.items())
    ]
    return "\n".join([line.rstrip(), *lines])


def _cut(name: str) -> str:
    return name if len(name) < 34 else name[:32] + "…"


def notes(measures: Sequence[Measure]) -> list[str]:
    """What a reader of the table has to know."""
    beyond = [f"{each.name} {each.beyond_context} of {each.n}" for each in measures if each.beyond_context]
    if not beyond:
        return []
    more = f" and {len(beyond) - 3} tasks more" if len(beyond) > 3 else ""
    return [f"longer than the model's context: {', '.join(beyond[:3])}{more}"]


def summaries(measures: Sequence[Measure]) -> dict[str, dict[str, Any]]:
    """CORE, the JA mean and ChatCORE, as far as tasks of theirs were measured."""
    found = {
        "core": summarise_core(measures),
        "japanese": summarise_japanese(measures),
        "chat_core": summarise_chat(measures),
    }
    return {name: summary for name, summary in found.items() if summary}


def summary_lines(found: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The lines below the table."""
    lines = []
    for name, each in found.items():
        if "missing" in each:
            lines.append(f"{each['name']}: not worked out, these were not run: {', '.join(each['missing'])}")
        elif name == "core":
            lines.append(_headline(str(each["name"]), each["v1"], each["v1_standard_error"]))
            lines.append(_headline("  by v2's baselines", each["v2"], each["v2_standard_error"]))
        elif name == "chat_core":
            lines.append(_headline("ChatCORE", each["score"], each["standard_error"]))
            without = each["without_spellingbee"], each["without_spellingbee_standard_error"]
            lines.append(_headline("  without SpellingBee", *without))
        else:
            lines.append(_headline(f"JA mean of {', '.join(each['tasks'])}", each["score"], each["standard_error"]))
            if each["left_out"]:
                lines.append(f"  left out, not above an empty answer: {', '.join(each['left_out'])}")
    return lines


def _headline(name: str, score: float, error: float) -> str:
    wide = name if len(name) < 52 else name + "\n" + " " * 51
    return f"{wide:<52}{score:>8.4f} +- {error:.4f}"


def result(
    kind: str, settings: Mapping[str, Any], how: Mapping[str, Any], measures: Sequence[Measure]
) -> dict[str, Any]:
    """result.json: settings that decide the replies, how they came about, tasks, and what they make together."""
    return {
        "kind": kind,
        "version": __version__,
        "settings": dict(settings),
        "run": dict(how),
        "tasks": {each.name: each.as_json() for each in measures},
        **summaries(measures),
    }
