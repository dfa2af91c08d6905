"""What differs from the published run, setting by setting, and what this project does differently on purpose."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from megatron_iberis.config import Recipe
from megatron_iberis.report.markdown import inline, table
from megatron_iberis.report.published import Published
from megatron_iberis.report.records import Run
from megatron_iberis.report.settings import short_path
from megatron_iberis.report.words import amount

_SETTINGS: Sequence[tuple[str, Callable[[Recipe], object]]] = (
    ("layers", lambda r: r.model.depth),
    ("width", lambda r: r.model.width),
    ("heads", lambda r: r.model.heads),
    ("heads for keys and values", lambda r: r.model.kv_heads),
    ("width of the MLP", lambda r: r.model.mlp_hidden),
    ("norm inside SLC2", lambda r: r.model.inner_norm),
    ("one layer in so many is attention", lambda r: r.model.slc_rate),
    ("taps of the convolution", lambda r: r.model.kernel),
    ("vocabulary", lambda r: f"{r.model.vocab_size:,}"),
    ("parameters", lambda r: f"{r.model.parameter_count():,}"),
    ("tokens in a row", lambda r: f"{r.model.sequence_length:,}"),
    ("steps", lambda r: f"{r.train.steps:,}" if r.train.steps else f"{r.train.epochs} pass over the data"),
    ("tokens of a step", lambda r: f"{r.train.batch_tokens:,}"),
    ("precision", lambda r: r.train.dtype),
    ("optimizer", lambda r: r.optimizer.kind),
    ("rate of matrices", lambda r: r.optimizer.matrix_lr if r.optimizer.kind == "muon" else r.optimizer.lr),
    ("rate of the embedding", lambda r: r.optimizer.embedding_lr if r.optimizer.kind == "muon" else r.optimizer.lr),
    (
        "rate of the output head",
        lambda r: r.optimizer.unembedding_lr if r.optimizer.kind == "muon" else r.optimizer.lr,
    ),
    ("share of these rates", lambda r: r.optimizer.lr_fraction),
    ("warm-up", lambda r: r.optimizer.warmup_fraction or f"{r.optimizer.warmup_steps} steps"),
    ("share of steps with falling rates", lambda r: r.optimizer.warmdown_fraction),
    ("steps of rising momentum", lambda r: r.optimizer.momentum_warmup_steps),
    ("clip of the gradient", lambda r: r.optimizer.clip or "none"),
    ("packing of rows", lambda r: r.data.packing),
    ("documents in a row are kept apart", lambda r: r.data.document_mask),
    ("conversations of", lambda r: ", ".join(map(short_path, r.tasks.mixture))),
    ("answers to a prompt", lambda r: r.reinforce.samples if r.reinforce.active else ""),
    ("tokens of an answer at most", lambda r: r.reinforce.answer_tokens if r.reinforce.active else ""),
)

_OF_THE_MODEL = [name for name, _ in _SETTINGS].index("parameters") + 1
"""The first settings are the same at all stages, and told once."""

ON_PURPOSE = """\
Whatever the settings, this project departs from the published code where that was found to go wrong:

* the convolution's weights are initialised (there they are whatever the memory held);
* the gradient is clipped after it has been averaged over all ranks, so that the result does not depend on how many
  there are;
* bits per byte count the true bytes of a text; rotary tables are fp32; no token is skipped between two batches;
* model FLOPs count attention in attention layers only, so MFU is lower by 12 to 14 % than by the published count;
* SFT packs conversations into rows, kept apart by a mask, where the published run has one conversation a row;
* answers are decoded with the state of the convolutions."""


def differences(runs: Sequence[Run], published: Published) -> str:
    """A table a stage of the settings that differ, for stages that were published; then what always differs."""
    said = []
    for number, run in enumerate(runs):
        theirs = published.of(run.stage)
        if theirs is None or (run.stage == "rl"):
            said.append(f"**{inline(run.label)}**: there is no published run of this stage.")
            continue
        rows = [
            [name, inline(_word(of(theirs))), inline(_word(of(run.recipe)))]
            for name, of in (_SETTINGS if number == 0 else _SETTINGS[_OF_THE_MODEL:])
            if _word(of(theirs)) != _word(of(run.recipe))
        ]
        if not rows:
            said.append(f"**{inline(run.label)}**: every setting that matters is the published one.")
            continue
        said += [
            f"**{inline(run.label)}**:",
            table(["setting", f"published {published.recipe}", "this run"], rows, left=3),
        ]
    tokens = sum(run.tokens for run in runs if run.stage == "base")
    if tokens and (theirs := published.of("base")):
        of = theirs.train.steps * theirs.train.batch_tokens
        said.append(
            f"The published base model saw {amount(of)} tokens of {published.data}; this one {amount(tokens)} "
            f"({100 * tokens / of:.3g} % of that) of the texts under Data."
        )
    return "\n\n".join([*said, ON_PURPOSE])


def _word(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)
