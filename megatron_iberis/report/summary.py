"""The first words of a report, for a reader who knows nothing: sentences made of numbers, none of promises."""

from __future__ import annotations

from collections.abc import Sequence

from megatron_iberis.config.stage import TITLES
from megatron_iberis.report.data import counted, token_files, told_languages
from megatron_iberis.report.evaluations import Scored
from megatron_iberis.report.markdown import inline
from megatron_iberis.report.records import Run
from megatron_iberis.report.words import amount, duration, listed, many

NAMES = {"en": "English", "ja": "Japanese"}
_MOST_TASKS = 6

HOW_TO_READ = """\
* **Score**: the share of questions answered rightly, times 100 (for JSQuAD and NIILC: how far an answer's characters
  are the right ones). Means of tasks (CORE, ChatCORE, JA mean) are *centred*: 0 is what guessing gives, 100 is
  everything right.
* **± standard error**: how far the score would move by the luck of which questions were asked. Differences of less
  than about three standard errors are no evidence. Training the same model again with another seed moves CORE by
  about 1.6 points as well.
* **Chance**: what guessing (or, where answers are written, saying nothing) would get. **~** marks a score within two
  standard errors of it: such a score says nothing of what the model knows.
* **n**: how many questions were asked.
* **Bits per byte**: how many bits the model needs for a byte of text that it has not seen; less is better. Text that
  is stored plainly has 8, a good compression program needs about 2. It does not depend on how a text is cut.
* **Loss**: the same surprise counted in nats a token. Only runs with the same tokenizer can be compared by it.
* **Token**: a piece of text, a word or a part of one, which the model reads and writes one at a time.
* **Stages**: *base* learns to continue text; *mid* sees conversations and tasks; *SFT* learns to answer; *DPO* learns
  which of two answers is preferred; *RL* learns from its own answers that can be marked."""


def introduction(runs: Sequence[Run], title: str) -> str:
    """What the model is, what it was trained on, and what its numbers say that it can do."""
    model = runs[-1].recipe.model
    attention = len(model.attention_layers)
    context = max(run.recipe.model.sequence_length for run in runs)
    first = (
        f"**{inline(title)}** is a small language model of the Saint Iberis kind: a program that continues text one "
        f"piece (token) at a time. It has {amount(model.parameter_count())} parameters in "
        f"{many(model.depth, 'layer')}: {model.depth - attention} of them mix neighbouring tokens by a gated short "
        f"convolution (SLC2), and {attention} look back at the whole text so far (attention). In training it read up "
        f"to {context:,} tokens at once."
    )
    return "\n\n".join([first, _trained(runs), *_can(runs), _state(runs)]).strip()


def _trained(runs: Sequence[Run]) -> str:
    parts = []
    for run in runs:
        if run.stage == "base":
            tongues = listed([NAMES[language] for language in told_languages(run)])
            text = f" of {tongues} text" if tongues else " of text"
            files = listed([inline(each.name) for each in token_files(run)])
            parts.append(f"{TITLES['base']} on {amount(run.tokens)} tokens{text}" + (f" ({files})" if files else ""))
        elif run.stage == "dpo":
            pairs = sum(int(each.get("kept", 0)) for each in counted(run, "pairs").values())
            parts.append(f"{TITLES['dpo']} on " + (f"{pairs:,} pairs of answers" if pairs else "pairs of answers"))
        elif run.stage == "rl":
            parts.append(f"{TITLES['rl']} on questions of {inline(', '.join(run.recipe.tasks.mixture))}")
        else:
            found = {name: each for name, each in counted(run, "conversations").items() if name != "all"}
            read = sum(int(each.get("read", 0)) for each in found.values())
            parts.append(f"{TITLES[run.stage]} on " + (f"{read:,} conversations" if read else "conversations"))
    seconds = sum(run.seconds for run in runs)
    return (
        f"It was made by {listed(parts)}. These {sum(run.steps for run in runs):,} steps and their validations took "
        f"{duration(seconds)}."
    )


def _can(runs: Sequence[Run]) -> list[str]:
    """Of the last stage that was measured: what is above chance and what cannot be told from it."""
    measured = [run for run in runs if any(scored.measure.score is not None for scored in run.evaluations.all)]
    if not measured:
        return ["It has not been measured on any task, so nothing can be said about what it can do."]
    run = measured[-1]
    tasks = [scored for scored in run.evaluations.all if scored.measure.score is not None]
    above = [each for each in tasks if each.measure.above_chance]
    below = [each for each in tasks if not each.measure.above_chance and not each.measure.at_chance]
    unclear = [each for each in tasks if each.measure.at_chance]
    above.sort(key=lambda each: each.measure.centred(), reverse=True)
    said = f"Measured after {TITLES[run.stage]} on {many(len(tasks), 'task')}: "
    kinds = []
    if above:
        most = "above all " if len(above) > _MOST_TASKS else ""
        best = listed([_named(each) for each in above[:_MOST_TASKS]])
        kinds.append(f"on {len(above)} it is clearly better than guessing, {most}{best}")
    if unclear:
        names = [inline(each.measure.name) for each in unclear[:_MOST_TASKS]]
        more = [f"{len(unclear) - _MOST_TASKS} more"] if len(unclear) > _MOST_TASKS else []
        kinds.append(f"on {len(unclear)} it cannot be told from guessing: {listed([*names, *more])}")
    if below:
        worst = listed([_named(each) for each in below[:_MOST_TASKS]])
        kinds.append(f"on {len(below)} it is worse than guessing, {worst}")
    return [
        said + "; ".join(kinds) + ". A model of this size states wrong things fluently: what it says needs checking."
    ]


def _named(scored: Scored) -> str:
    measure = scored.measure
    return f"{inline(measure.name)} {100 * (measure.score or 0.0):.1f} (chance {100 * measure.chance:.1f})"


def _state(runs: Sequence[Run]) -> str:
    """What is not finished, or was left out of a log."""
    said = [
        f"The stage {inline(run.label)} is not finished: {run.steps:,} of {run.recipe.train.steps:,} steps are done."
        for run in runs
        if not run.finished
    ]
    said += [
        f"The last line of the log of {inline(run.label)} was cut off, and is left out."
        for run in runs
        if run.log.cut
    ]
    return " ".join(said)
