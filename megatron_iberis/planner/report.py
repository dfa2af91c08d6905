"""A plan in 80 columns, and as JSON."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import Any

from megatron_iberis.planner.batch import critical_batch, wasted
from megatron_iberis.planner.layouts import Layout
from megatron_iberis.planner.memory import FITS_BELOW
from megatron_iberis.planner.plan import Plan, Prediction

MOST_ROWS = 16
WIDTH = 80


def lines(plan: Plan, price: float) -> Iterator[str]:
    """All that is shown. price: of a GPU's hour, 0 where it is not known."""
    yield from _inputs(plan)
    yield ""
    yield from _table(plan)
    yield ""
    chosen = plan.advised
    if chosen is None:
        yield from _wrapped(_nothing_fits(plan))
        return
    yield from _advice(plan, chosen, price)


def _inputs(plan: Plan) -> Iterator[str]:
    model, train, rates = plan.recipe.model, plan.recipe.train, plan.rates
    yield (
        f"{model.parameter_count():,} parameters, {train.steps:,} steps of {train.batch_tokens:,} tokens, "
        f"{train.dtype}"
    )
    yield (
        f"{plan.gpus} x {plan.device.name}, {rates.per_node} a node: {rates.peak / 1e12:.4g} TFLOP/s, "
        f"{plan.room / 1e9:.4g} GB each"
    )
    low, high = plan.range
    how = "calibrated on this machine" if rates.calibrated else "uncalibrated"
    yield f"{how}: time {100 * low - 100:+.0f} % to {100 * high - 100:+.0f} %; tensors within 10 %"
    if plan.recipe.train.compile:
        yield "layers compiled (train.compile): of memory they need less than is planned"


def _table(plan: Plan) -> Iterator[str]:
    yield "  tp cp   dp zero recompute rows     GB  of GPU   step s   tokens/s   MFU"
    shown = list(plan.predictions[:MOST_ROWS])
    if plan.own and plan.own not in shown:
        shown.append(plan.own)
    for p in shown:
        layout, seconds = p.layout, p.time.seconds
        mark = ">" if p is plan.advised else "r" if p is plan.own else " "
        fits = " " if plan.fits(p) else "!"
        yield (
            f"{mark} {layout.tp:2} {layout.cp:2} {layout.dp:4} {layout.zero_stage:4} {_yes(layout):>9} "
            f"{layout.rows:4} {p.bytes / 1e9:6.4g} {100 * p.bytes / plan.room:5.0f} %{fits} {seconds:7.4g} "
            f"{_short(plan.recipe.train.batch_tokens / seconds):>10} {100 * plan.mfu(seconds):4.0f} %"
        )
    left = len(plan.predictions) - len(shown)
    yield f"> advised, r the recipe's own, ! at {100 * FITS_BELOW:.0f} % or more: not safe"
    if left > 0:
        yield f"{left} more layouts with --json FILE"


def _advice(plan: Plan, p: Prediction, price: float) -> Iterator[str]:
    low, high = plan.range
    time, seconds = p.time, p.time.seconds
    yield from _wrapped(f"Advised: {_words(p.layout)}. {_why(plan, p)}")
    yield ""
    memory = p.memory
    yield f"memory of a rank, most in {_phase(memory.when)}:"
    kinds = {
        "weights": memory.weights,
        "gradients": memory.gradients,
        "optimizer": memory.optimizer,
        "activations": memory.activations,
        "in passing": memory.passing,
        "buffers": memory.buffers,
        "beside tensors": p.overhead,
    }
    yield from _wrapped(", ".join(f"{name} {size / 1e9:.3g}" for name, size in kinds.items()) + " GB")
    yield (
        f"step {_seconds(seconds)} ({_seconds(low * seconds)} to {_seconds(high * seconds)}): layers "
        f"{_seconds(time.layers)}, head {_seconds(time.head)},"
    )
    yield (
        f"  optimizer {_seconds(time.optimizer)}, waiting for messages {_seconds(time.messages)}, for the host "
        f"{_seconds(time.host)}"
    )
    traffic = time.traffic
    yield (
        f"sent by a rank in a step: {traffic.inside / 1e9:.3g} GB inside the node, "
        f"{traffic.between / 1e9:.3g} GB between nodes"
    )
    hours = plan.hours(seconds)
    money = f", {plan.gpus * hours * price:,.0f} at {price:g} a GPU-hour" if price else ""
    yield (
        f"{_short(plan.recipe.train.batch_tokens / seconds)} tokens/s, MFU {100 * plan.mfu(seconds):.0f} %; "
        f"{hours:.3g} hours ({low * hours:.3g} to {high * hours:.3g}){money}"
    )
    yield from _wrapped(_batch(plan))
    yield ""
    words = p.layout.words
    if plan.recipe.train.compile and p.layout.zero_stage == 3:
        words = [*words, "--train.compile", "false"]  # it was planned so
    yield from _wrapped(f"deepspeed ... {' '.join(words)}")


def _batch(plan: Plan) -> str:
    train, parameters = plan.recipe.train, plan.recipe.model.parameter_count()
    critical = critical_batch(parameters, train.steps * train.batch_tokens)
    lost = 100 * wasted(train.batch_tokens, critical)
    beyond = "beyond it: fewer GPUs, or a larger model, pay more" if train.batch_tokens > critical else "within it"
    return (
        f"critical batch: about {_short(critical)} tokens, within a factor of two (Kaplan 2020 at Hoffmann 2022's "
        f"loss); the recipe's {_short(train.batch_tokens)} are {beyond} ({lost:.0f} % of the tokens are the price of "
        "their being many at once)."
    )


def _why(plan: Plan, p: Prediction) -> str:
    layout, reasons = p.layout, []
    simpler = [q for q in plan.predictions if not plan.fits(q) and q.time.seconds < p.time.seconds]
    if simpler:
        reasons.append(f"{len(simpler)} faster layouts need {100 * FITS_BELOW:.0f} % of the memory or more")
    fastest = next(q for q in plan.predictions if plan.fits(q))
    if p is fastest:
        reasons.append("of those that fit it is the fastest")
    else:
        off = 100 * (p.time.seconds / fastest.time.seconds - 1)
        reasons.append(
            f"of those that fit the fastest is {off:.0f} % faster, which a plan cannot tell, and less simple"
        )
    share = p.time.messages / p.time.seconds
    if share > 0.2:
        reasons.append(f"{100 * share:.0f} % of the step waits for messages: more GPUs will pay little")
    if layout.accumulation == 1 and layout.rows <= 2:
        reasons.append("there is a row or two for each rank: the batch cannot be shared any further")
    text = "; ".join(reasons)
    return text[0].upper() + text[1:] + "."


def _nothing_fits(plan: Plan) -> str:
    least = min(plan.predictions, key=lambda p: p.bytes)
    return (
        f"No layout fits: the least is {least.bytes / 1e9:.3g} GB a rank ({_words(least.layout)}), and "
        f"{FITS_BELOW * plan.room / 1e9:.3g} of {plan.room / 1e9:.3g} GB can be used safely. Take more GPUs, a "
        "larger device, or a smaller model."
    )


def _words(layout: Layout) -> str:
    words = f"tensor {layout.tp} x context {layout.cp} x data {layout.dp}, ZeRO {layout.zero_stage}"
    words += ", recomputation" if layout.recompute else ""
    return f"{words}, {layout.rows} rows x {layout.accumulation} micro-batches"


def _phase(when: str) -> str:
    return {"reduction": "the reduction of gradients", "optimizer": "the optimizer"}.get(when, f"the {when} pass")


def _yes(layout: Layout) -> str:
    return "yes" if layout.recompute else "no"


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, break_on_hyphens=False)


def _seconds(seconds: float) -> str:
    return f"{seconds:.3g} s" if seconds >= 1 else f"{1000 * seconds:.3g} ms"


def _short(number: float) -> str:
    for unit, name in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if number >= unit:
            return f"{number / unit:.3g}{name}"
    return f"{number:.3g}"


def as_json(plan: Plan, price: float) -> dict[str, Any]:
    """Everything, in bytes and seconds."""
    train, parameters = plan.recipe.train, plan.recipe.model.parameter_count()
    critical = critical_batch(parameters, train.steps * train.batch_tokens)
    return {
        "parameters": parameters,
        "flops_per_token": plan.recipe.model.flops_per_token(),
        "steps": train.steps,
        "batch_tokens": train.batch_tokens,
        "gpus": plan.gpus,
        "device": plan.device.name,
        "device_bytes": plan.room,
        "peak_flops": plan.rates.peak,
        "calibrated": plan.rates.calibrated,
        "range": plan.range,
        "critical_batch": critical,
        "advised": _entry(plan, plan.advised, price) if plan.advised else None,
        "layouts": [_entry(plan, p, price) for p in plan.predictions],
    }


def _entry(plan: Plan, p: Prediction, price: float) -> dict[str, Any]:
    seconds = p.time.seconds
    hours = plan.hours(seconds)
    return {
        **vars(p.layout),
        "fits": plan.fits(p),
        "memory_bytes": {**{k: v for k, v in vars(p.memory).items() if k != "when"}, "beside_tensors": p.overhead},
        "memory_most_in": p.memory.when,
        "step_seconds": seconds,
        "step_parts": {
            "layers": p.time.layers,
            "head": p.time.head,
            "optimizer": p.time.optimizer,
            "messages": p.time.messages,
            "host": p.time.host,
        },
        "sent_bytes": {
            "inside_node": p.time.traffic.inside,
            "between_nodes": p.time.traffic.between,
            **{name: sent.inside + sent.between for name, sent in p.time.traffic.parts.items()},
        },
        "tokens_per_second": plan.recipe.train.batch_tokens / seconds,
        "mfu": plan.mfu(seconds),
        "hours": hours,
        "money": plan.gpus * hours * price if price else None,
    }
