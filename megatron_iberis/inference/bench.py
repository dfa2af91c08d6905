"""`iberis bench infer`: how fast a model answers here, beside what the memory allows and beside the reference.

* First token: from handing over the prompts, of `prefill` random tokens each, until every one has its first token.
* Step: one token of every request, what choosing it takes included. GB/s: the weights, and the requests' keys and
  values, that each step reads.
* The reference runs in fp32: step by step as upstream decodes, and all of the sequence again for each token.
"""

from __future__ import annotations

import gc
import json
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

import torch

from megatron_iberis.config import ModelConfig
from megatron_iberis.errors import InputError
from megatron_iberis.hardware.measure import peak_flops, read_bandwidth
from megatron_iberis.inference.baselines import Recomputation, StepByStep
from megatron_iberis.inference.decoder import Decoder
from megatron_iberis.inference.engine import Engine
from megatron_iberis.inference.sampling import Sampling
from megatron_iberis.inference.state import Memory
from megatron_iberis.kernels.cpu_threads import usable_cpus
from megatron_iberis.model.reference import ReferenceIberis

_RECOMPUTED = 3
"""Tokens for which the reference runs everything again: each takes as long as a prompt."""


@dataclass(frozen=True)
class Case:
    """What to measure: batches of prompts, and the tokens that follow."""

    batch: int
    prefill: int
    tokens: int


def check(config: ModelConfig, cases: Sequence[Case]) -> None:
    """InputError for a case that the model has no context for, or that has nothing to measure."""
    for case in cases:
        if case.batch < 1 or case.prefill < 1 or case.tokens < 2:
            raise InputError(
                "a batch and a prompt need 1 at least, an answer 2 tokens: raise --batch, --prefill or --tokens."
            )
        if case.prefill + case.tokens > config.sequence_length:
            raise InputError(
                f"--prefill {case.prefill} and --tokens {case.tokens} are more than the model's context of "
                f"{config.sequence_length}: lower them."
            )


@dataclass(frozen=True)
class Speed:
    """One line of the report. Seconds and bytes, unless said otherwise."""

    what: str
    batch: int
    first_token: float
    step_p50: float
    step_p99: float
    tokens_per_second: float
    gigabytes_per_second: float | None
    memory: int | None


def random_weights(config: ModelConfig) -> dict[str, torch.Tensor]:
    """For speed alone: normal, 1 / sqrt(inputs)."""
    with torch.device("meta"):
        model = ReferenceIberis(config)
    return {name: torch.randn(p.shape) * p[0].numel() ** -0.5 for name, p in model.named_parameters()}


def measure(
    config: ModelConfig,
    weights: Mapping[str, torch.Tensor],
    kinds: Sequence[str],
    cases: Sequence[Case],
    device: torch.device,
    reference: bool = True,
) -> Iterator[Speed]:
    """The speeds of each kind of weights and of the reference, one after the other as they come."""
    if device.type == "cpu":
        torch.set_num_threads(usable_cpus())
    for kind in kinds:
        dtype = torch.bfloat16 if kind == "bf16" else torch.float32
        with torch.inference_mode():
            decoder = Decoder(config, weights, dtype, device, body=kind, head=kind)
        for case in cases:
            yield _of_engine(decoder, kind, case)
        del decoder
        gc.collect()
    for name, way in (("reference, step by step", StepByStep), ("reference, all again", Recomputation)):
        if reference:
            model = way(config, weights)
            for case in cases:
                yield _of_reference(name, model, case)


def _of_engine(decoder: Decoder, kind: str, case: Case) -> Speed:
    per_token = Memory.bytes_per_token(decoder.config, decoder.dtype)
    room = case.batch * (case.prefill + case.tokens)
    engine = Engine(decoder, case.batch, case.prefill, room * per_token)
    greedy, prompts = Sampling(temperature=0), _prompts(decoder.config, case).tolist()
    requests = [engine.submit(prompt, greedy, case.tokens) for prompt in prompts]

    def all_begun() -> None:
        while not all(request.answer for request in requests):
            engine.step()

    # The first ones have gone on while the last were read: steps are measured from here on, to the first one's end.
    first = _seconds(all_begun)
    steps = []
    while engine.running == case.batch:
        steps.append(_seconds(engine.step))
    read = decoder.matrix_bytes + case.batch * (case.prefill + case.tokens // 2) * per_token
    embedding = decoder.embedding.nbytes
    return _speed(kind, case, first, steps, read, decoder.matrix_bytes + embedding + room * per_token)


def _of_reference(name: str, model: Recomputation, case: Case) -> Speed:
    ids = _prompts(model.config, case)
    first = _seconds(lambda: model.prefill(ids))
    tokens = case.tokens if isinstance(model, StepByStep) else _RECOMPUTED
    return _speed(name, case, first, [_seconds(model.step) for _ in range(tokens)])


def _prompts(config: ModelConfig, case: Case) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(config.vocab_size, (case.batch, case.prefill), generator=generator)


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _speed(
    what: str, case: Case, first: float, steps: Sequence[float], read: int | None = None, memory: int | None = None
) -> Speed:
    middle = statistics.median(steps)
    last = sorted(steps)[min(len(steps) - 1, int(0.99 * len(steps)))]
    rate = read / middle / 1e9 if read else None
    return Speed(what, case.batch, first, middle, last, case.batch / middle, rate, memory)


@dataclass(frozen=True)
class Machine:
    """What this device does at most."""

    read_gigabytes_per_second: float
    matrix_gigaflops: dict[str, float]
    threads: int

    def __str__(self) -> str:
        rates = ", ".join(f"{rate:,.0f} GFLOP/s in {dtype}" for dtype, rate in self.matrix_gigaflops.items())
        threads = "1 thread" if self.threads == 1 else f"{self.threads} threads"
        return f"{threads}; reads {self.read_gigabytes_per_second:.1f} GB/s; {rates}"

    @classmethod
    def measured(cls, device: torch.device) -> Machine:
        flops = {dtype: peak_flops(device, dtype).flops / 1e9 for dtype in ("fp32", "bf16")}
        return cls(read_bandwidth(device) / 1e9, flops, torch.get_num_threads())


HEADER = f"{'weights':<25}{'batch':>5}{'first':>8}{'step p50':>10}{'p99':>8}{'tokens/s':>10}{'GB/s':>7}{'GB':>6}"


def line(speed: Speed) -> str:
    """A row of the table, 79 characters wide."""
    rate = "" if speed.gigabytes_per_second is None else f"{speed.gigabytes_per_second:.1f}"
    memory = "" if speed.memory is None else f"{speed.memory / 1e9:.2f}"
    return (
        f"{speed.what:<25}{speed.batch:>5}{speed.first_token:>6.2f} s{1e3 * speed.step_p50:>7.1f} ms"
        f"{1e3 * speed.step_p99:>5.0f} ms{speed.tokens_per_second:>10.1f}{rate:>7}{memory:>6}"
    )


def json_line(machine: Machine, speeds: Sequence[Speed]) -> str:
    """All of it, for programs."""
    return json.dumps({"machine": asdict(machine), "speeds": [asdict(speed) for speed in speeds]})
