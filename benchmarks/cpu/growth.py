"""How speed and memory of a training step grow with depth, sequence length and vocabulary, and what they go into.

    python -m benchmarks.cpu.growth --output DIR [--threads N] [--long]

Whole steps of the engine in bf16 at width 256, each shape in a fresh process: depths 4 to 32; sequence lengths 512 to
8,192 at 8,192 tokens a step (--long: also 32,768 at as many tokens); vocabularies 2k to 128k. In DIR: a picture of
each (tokens/s and peak memory beyond the imports), growth.json, and growth.md with the share of a step's time that
goes into the loss (output head included), the layers (forward and backward, embedding included) and the optimizer.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch

from benchmarks.cpu import contenders
from benchmarks.cpu.__main__ import physical_cores
from benchmarks.cpu.children import in_child
from benchmarks.cpu.shapes import Shape
from benchmarks.gpu.parts import Parts
from megatron_iberis.command import Parser, run
from megatron_iberis.config import ModelConfig
from megatron_iberis.errors import InputError
from megatron_iberis.hardware.measure import memory_bytes
from megatron_iberis.report import drawing
from megatron_iberis.storage.atomic import write_atomic, write_json

PARTS = ("loss", "layers", "optimizer")
STEPS = 3
"""After one that does not count."""


@dataclass(frozen=True)
class Sweep:
    """One setting of the model that grows, and what the others stand at."""

    setting: str
    label: str
    sizes: tuple[int, ...]
    depth: int = 4
    vocab_size: int = 8192
    sequence_length: int = 512
    tokens: int = 2048
    """Of a step; a longer sequence is a step of its own."""
    width: int = 256

    def shape(self, size: int) -> Shape:
        sizes = {name: getattr(self, name) for name in ("depth", "vocab_size", "sequence_length")}
        model = ModelConfig(width=self.width, **{**sizes, self.setting: size}).resolved()
        return Shape(str(size), model, max(1, self.tokens // model.sequence_length))


LENGTHS = (512, 1024, 2048, 4096, 8192)
SWEEPS = (
    Sweep("depth", "layers", (4, 8, 16, 32)),
    Sweep("sequence_length", "sequence length, tokens", LENGTHS, tokens=LENGTHS[-1]),
    Sweep("vocab_size", "vocabulary, tokens", (2048, 8192, 32768, 131072)),
)
LONG = 32768


@dataclass(frozen=True)
class Point:
    """What was measured at one size."""

    size: int
    tokens: int
    tokens_per_second: float
    peak_mb: float
    seconds: dict[str, float] = field(default_factory=dict)
    """Of a step, by part."""

    @property
    def shares(self) -> dict[str, float]:
        total = sum(self.seconds.values())
        return {part: self.seconds[part] / total for part in PARTS}

    @property
    def most(self) -> str:
        """The part that takes most."""
        return max(PARTS, key=lambda part: self.seconds[part])


def measure_point(size: int, shape: Shape, threads: int) -> Point:
    """Runs in a child."""
    cpu = torch.device("cpu")
    before = memory_bytes(cpu)
    engine = contenders.engine_of(shape, "bf16", contenders.start(threads))
    step, parts = contenders.engine_step(engine, shape), Parts(engine)
    parts.listen("loss", engine.model.head)  # its gradient is worked out in the forward pass
    step()
    parts.reset()
    started = time.perf_counter()
    for _ in range(STEPS):
        step()
    seconds = (time.perf_counter() - started) / STEPS
    found = {part: total / STEPS for part, total in parts.seconds().items()}
    layers = found["forward"] + found["backward"] - found["loss"]
    by_part = {"loss": found["loss"], "layers": layers, "optimizer": found["optimizer"]}
    return Point(size, shape.tokens, shape.tokens / seconds, (memory_bytes(cpu) - before) / 1e6, by_part)


def table(sweep: Sweep, points: Sequence[Point]) -> str:
    """In markdown."""
    head = [sweep.label, "tokens a step", "tokens/s", "peak MB", *PARTS, "most goes into"]
    lines = [head, ["---", *["---:"] * (len(head) - 2), "---"]]
    for point in points:
        figures = [f"{x:,.0f}" for x in (point.size, point.tokens, point.tokens_per_second, point.peak_mb)]
        lines.append([*figures, *(f"{share:.0%}" for share in point.shares.values()), point.most])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def picture(sweep: Sweep, points: Sequence[Point]) -> bytes:
    """Tokens a second and peak memory over the size, as a PNG."""
    from matplotlib.ticker import FuncFormatter, NullLocator

    with drawing.style():
        figure = drawing.new_figure(3.6)
        sizes = [point.size for point in points]
        figures = {
            "tokens/s": [point.tokens_per_second for point in points],
            "peak memory beyond imports, MB": [point.peak_mb for point in points],
        }
        for panel, (label, values) in zip(figure.subplots(1, 2), figures.items(), strict=True):
            panel.plot(sizes, values, marker="o", color=drawing.COLOURS["base"])
            panel.set_xscale("log", base=2)
            panel.set_xticks(sizes, [f"{size:,}" for size in sizes])
            panel.xaxis.set_minor_locator(NullLocator())
            panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
            panel.set_ylim(0, 1.1 * max(values))
            panel.set_xlabel(sweep.label)
            panel.set_ylabel(label)
        return drawing.png(figure)


def main(arguments: Sequence[str] | None = None, sweeps: Sequence[Sweep] = SWEEPS) -> int:
    parser = Parser(prog="python -m benchmarks.cpu.growth", description=__doc__)
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="a folder for what is found")
    parser.add_argument("--threads", type=int, default=physical_cores(), help="default: all physical cores")
    parser.add_argument("--long", action="store_true", help=f"also a sequence of {LONG:,} tokens")
    options = parser.parse_args(arguments)
    if not drawing.installed():
        raise InputError("the pictures need matplotlib: pip install 'megatron_iberis[report]'.")
    options.output.mkdir(parents=True, exist_ok=True)
    found, text = {}, f"# A training step in bf16, width {sweeps[0].width}, {options.threads} threads\n"
    for sweep in sweeps:
        long = (LONG,) if options.long and sweep.setting == "sequence_length" else ()
        points = []
        for size in (*sweep.sizes, *long):
            points.append(in_child(measure_point, size, sweep.shape(size), options.threads))
            rate = f"{points[-1].tokens_per_second:,.0f} tokens/s"
            print(f"{sweep.label} {size:,}: {rate}", file=sys.stderr, flush=True)
        found[sweep.setting] = [asdict(point) for point in points]
        text += f"\n{table(sweep, points)}"
        write_atomic(options.output / f"{sweep.setting}.png", picture(sweep, points))
        write_json(options.output / "growth.json", found)
        write_atomic(options.output / "growth.md", text.encode())
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(run(main, "what was measured until then lies in the folder."))
