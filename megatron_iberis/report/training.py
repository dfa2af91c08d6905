"""How it was trained, in Markdown: recipe, data, machine, time, samples, the health of DPO and RL."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean, median

from megatron_iberis.config.stage import TITLES
from megatron_iberis.report.data import TokenFile, counted, token_files
from megatron_iberis.report.markdown import block, code, inline, table
from megatron_iberis.report.records import Fields, Run
from megatron_iberis.report.settings import short_path
from megatron_iberis.report.words import amount, dollars, duration, listed, points


def stages_table(runs: Sequence[Run], price: float | None) -> str:
    """A line a stage: steps, tokens, wall clock, speed, memory, cost."""
    head = ["stage", "steps", "tokens", "wall clock", "tokens/s", "MFU", "memory", *(["cost"] if price else [])]
    rows = []
    for run in runs:
        warm = [line for line in run.log.steps if line.get("warm")]
        speeds = [line["tokens_per_second"] for line in warm if line.get("tokens_per_second")]
        used = [line["mfu"] for line in warm if line.get("mfu")]
        memory = max((line.get("memory_bytes") or 0 for line in run.log.steps), default=0)
        steps = f"{run.steps:,}" if run.finished else f"{run.steps:,} of {run.recipe.train.steps:,}"
        row = [f"{inline(run.label)}: {TITLES[run.stage]}", steps, amount(run.tokens), duration(run.seconds)]
        row += [f"{median(speeds):,.0f}" if speeds else "", f"{100 * fmean(used):.1f} %" if used else ""]
        row.append(f"{memory / 1e9:.1f} GB" if memory else "")
        rows.append([*row, *([dollars(run.seconds, price)] if price else [])])
    if len(runs) > 1:
        seconds = sum(run.seconds for run in runs)
        total = ["all", "", amount(sum(run.tokens for run in runs)), duration(seconds), "", "", ""]
        rows.append([*total, *([dollars(seconds, price)] if price else [])])
    return table(head, rows)


def timings_table(timings: Mapping[str, float], price: float | None) -> str:
    """The steps of a whole run from text to report, as a clock on the wall saw them."""
    rows = [
        [inline(name), duration(seconds), *([dollars(seconds, price)] if price else [])]
        for name, seconds in (*timings.items(), ("all", sum(timings.values())))
    ]
    return table(["step", "wall clock", *(["cost"] if price else [])], rows)


def machine_table(runs: Sequence[Run]) -> str:
    """What each run ran on. "not recorded" where its log is older than that."""
    rows = []
    for run in runs:
        rows += [[inline(run.label), *_machine(machine)] for machine in run.log.machines] or [
            [inline(run.label), "not recorded", "", ""]
        ]
    return table(["stage", "device", "ranks", "host and versions"], rows, left=4)


def _machine(machine: Fields) -> list[str]:
    device = str(machine.get("gpu") or machine.get("device") or "")
    if machine.get("gpu_memory_bytes"):
        device += f", {machine['gpu_memory_bytes'] / 2**30:.0f} GiB"
    host = [str(machine["processor"])] if machine.get("processor") else []
    if machine.get("cores"):
        host.append(f"{machine['cores']} cores")
    if machine.get("memory_bytes"):
        host.append(f"{machine['memory_bytes'] / 2**30:.0f} GiB")
    names = ("python", "torch", "deepspeed", "megatron-core", "megatron_iberis")
    host += [f"{name} {machine[name]}" for name in names if machine.get(name)]
    if machine.get("commit"):
        changed = " with changes" if str(machine["commit"]).endswith("-dirty") else ""
        host.append(f"commit {str(machine['commit'])[:12]}{changed}")
    return [inline(device), inline(machine.get("ranks", "")), inline(", ".join(host))]


def skipped_sentence(runs: Sequence[Run]) -> str:
    """Steps whose loss or gradient was not finite."""
    found = {run.label: sum(line.get("skipped") is True for line in run.log.steps) for run in runs}
    some = [f"{count:,} of {inline(label)}" for label, count in found.items() if count]
    if not some:
        return "No step was skipped: every loss and gradient was a finite number."
    return f"Steps that were skipped, since loss or gradient were no finite number: {listed(some)}."


# ---- data


def data_section(run: Run) -> str:
    """What became of the data of a run: a table, or what the recipe alone says."""
    if run.stage == "base":
        return _token_files(run)
    tables = []
    for group, title in (
        ("conversations", "conversations of"),
        ("pairs", "pairs of"),
        ("held_out_pairs", "held-out pairs of"),
    ):
        found = counted(run, group)
        names = list(next(iter(found.values()))) if found else []
        columns = [name for name in names if name != "step"]
        rows = [
            [inline(short_path(source)), *(f"{int(counts[c]):,}" for c in columns)]
            for source, counts in found.items()
        ]
        tables.append(table([title, *(_COUNTS.get(column, column) for column in columns)], rows))
    if run.stage == "rl":
        tables.append(f"Prompts of {listed([code(short_path(name)) for name in run.recipe.tasks.mixture])}.")
        tables += [
            inline(note["text"]) + "." for note in run.log.notes if "neither too hard nor" in note.get("text", "")
        ]
    found_any = "\n\n".join(each for each in tables if each)
    sources = map(short_path, (*run.recipe.tasks.mixture, *run.recipe.preference.data))
    return found_any or f"{listed([code(name) for name in sources])}; how many rows were read was not recorded."


_COUNTS = {
    "dropped": "too long, left out",
    "too_long": "too long, left out",
    "cut": "cut at an answer's end",
    "without_target": "nothing to learn, left out",
    "equal": "equal answers, left out",
    "targets": "tokens learned",
}


def _token_files(run: Run) -> str:
    found = token_files(run)
    rows = [[code(each.name), *_counts(each)] for each in found]
    head = ["token file", "weight", "documents", "tokens", "bytes of text", "documents read", "left out"]
    said = [table(head, rows)] if found else ["The recipe names no token files."]
    sources = [
        [inline(name), *(f"{int(counts.get(each, 0)):,}" for each in ("documents", "tokens"))]
        for each in found
        for name, counts in each.sources.items()
    ]
    if sources:
        said.append(table(["texts that these were made of", "documents", "tokens"], sources))
    total = sum(int(each.counts.get("tokens", 0)) for each in found)
    if total and all(each.counts for each in found) and run.tokens:
        said.append(
            f"The model saw {amount(run.tokens)} tokens, which is {run.tokens / total:.2f} times all of these."
        )
    if run.recipe.data.val:
        said.append(f"Held out, and only looked at: {code(short_path(run.recipe.data.val, 1))}.")
    return "\n\n".join(said)


def _counts(file: TokenFile) -> list[str]:
    def count(name: str) -> str:
        return f"{int(file.counts[name]):,}" if name in file.counts else "not recorded"

    left = ", ".join(f"{number:,} {inline(reason)}" for reason, number in file.left_out.items())
    read = f"{file.read:,}" if file.read is not None else "not recorded"
    weight = "" if file.weight is None else f"{file.weight:g}"
    return [weight, *map(count, ("documents", "tokens", "text_bytes")), read, left or ("0" if file.read else "")]


def overlap_section(run: Run) -> str:
    """Evaluation items in what the run was trained on."""
    found = run.overlap
    rows = [
        [inline(short_path(row["name"])), *(f"{row[c]:,}" for c in ("rows", "with_items", "near_only"))]
        for row in found["sources"]
    ]
    sets = [
        [inline(short_path(row["name"])), *(f"{row[c]:,}" for c in ("items", "too_short", "found"))]
        for row in found["sets"]
    ]
    both = [
        f"{inline(short_path(row['source']))} holds {row['items']:,} items of {inline(row['set'])} in "
        f"{row['rows']:,} rows"
        for row in found["both"]
    ]
    return "\n\n".join(
        filter(
            None,
            (
                table(["trained on", "rows", "rows with items", "of them near copies only"], rows),
                table(["evaluation set", "items", "too short to look for", "found"], sets),
                f"{'; '.join(both)}." if both else "No source holds an item of a set.",
            ),
        )
    )


# ---- samples


def samples_section(runs: Sequence[Run]) -> str:
    """What the model wrote at the end of each stage, by prompt: English, then Japanese."""
    texts: dict[str, list[tuple[Run, Fields, str]]] = {}
    for run in runs:
        if run.log.samples:
            last = run.log.samples[-1]
            for sample in last["samples"]:
                texts.setdefault(str(sample["prompt"]), []).append((run, last, str(sample["continuation"])))
    said = []
    for title, japanese in (("English", False), ("Japanese", True)):
        chosen = {prompt: found for prompt, found in texts.items() if _is_japanese(prompt) is japanese}
        if chosen:
            said.append(f"### {title}")
        for prompt, found in chosen.items():
            said.append(f"Given:\n\n{block(prompt)}")
            for run, event, text in found:
                said.append(f"{inline(run.label)} (step {event['step']:,}):\n\n{block(text)}")
    return "\n\n".join(said)


def _is_japanese(text: str) -> bool:
    return any("\u3040" <= c <= "\u30ff" or "\u4e00" <= c <= "\u9fff" for c in text)


# ---- learning from answers


def preference_section(run: Run) -> str:
    """DPO's figures at the beginning and the end, and what to make of them."""
    settings, lines = run.recipe.preference, run.log.figures.get("preference") or run.log.figures.get("train", [])
    held_out = "held-out pairs" if run.log.figures.get("preference") else "pairs trained on"
    said = [f"Loss {code(settings.loss)}, beta {settings.beta:g}; figures of {held_out}."]
    names = {
        "loss": "loss (0.6931 before the first step)",
        "margin": "margin",
        "accuracy": "accuracy",
        "ranking": "preferred answer is the likelier one",
        "chosen_log_probability": "log-probability of preferred answers",
        "rejected_log_probability": "log-probability of the others",
    }
    if lines:
        rows = [
            [title, *(f"{float(line[name]):.4f}" for line in (lines[0], lines[-1]))]
            for name, title in names.items()
            if isinstance(lines[0].get(name), float) and isinstance(lines[-1].get(name), float)
        ]
        said.append(table(["figure", f"step {lines[0]['step']:,}", f"step {lines[-1]['step']:,}"], rows))
        first, last = lines[0].get("chosen_log_probability"), lines[-1].get("chosen_log_probability")
        if isinstance(first, float) and isinstance(last, float) and last < first:
            said.append(
                "Preferred answers have become less likely than they were, too: that is usual, as long as the others "
                "lose more, but much of it means that answers of other kinds take their place."
            )
    return "\n\n".join(said)


def reinforcement_section(run: Run) -> str:
    """RL's figures, and whether the reward has risen by more than its error."""
    settings, held_out = run.recipe.reinforce, run.log.figures.get("held_out", [])
    answers = run.log.figures.get("answers", [])
    said = [
        f"{settings.samples} answers to each prompt, of at most {settings.answer_tokens:,} tokens, at temperature "
        f"{settings.temperature:g}; what an answer is worth: {code(settings.reward or 'the mark of its task')}."
    ]
    if held_out:
        first, last = held_out[0], held_out[-1]
        passes = sorted((name for name in last if name.startswith("pass@")), key=lambda name: int(name[5:]))
        names = {"reward": "reward", "cut": "answers cut at the limit", **{name: name for name in passes}}
        rows = [[title, points(first.get(name)), points(last.get(name))] for name, title in names.items()]
        rows.append(["tokens of an answer", *(f"{line['length']:.1f}" for line in (first, last))])
        said.append(table(["held-out prompts", f"step {first['step']:,}", f"step {last['step']:,}"], rows))
        said.append(_risen(first, last))
    if answers:
        share = fmean(line["without_variance"] for line in answers)
        said.append(
            f"On average {100 * share:.0f} % of the groups had answers that were all worth the same, of which "
            f"nothing can be learned; {sum(int(line['groups_trained_on']) for line in answers):,} of "
            f"{sum(int(line['groups']) for line in answers):,} groups were trained on."
        )
    return "\n\n".join(filter(None, said))


def _risen(first: Fields, last: Fields) -> str:
    if first is last or not all(isinstance(line.get("reward"), float) for line in (first, last)):
        return ""
    change = last["reward"] - first["reward"]
    error = math.hypot(first.get("reward_error") or 0.0, last.get("reward_error") or 0.0)
    told = "more" if abs(change) > 2 * error else "no more"
    return (
        f"The held-out reward has changed by {100 * change:+.2f} points, which is {told} than two of its standard "
        f"errors ({100 * error:.2f})."
    )
