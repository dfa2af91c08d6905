"""Sections d20 and d12: training steps of a recipe in bf16 on one GPU, and the reference model beside them.

* The largest micro-batch is found by doubling until memory runs out, with layers that are not compiled: each number
  of rows would be compiled anew.
* A measured step has the rows that one of eight GPUs has of the recipe's batch: micro-batches, then one update.
* Forward and backward alone are measured for Iberis without DeepSpeed, for the reference, and for it compiled.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from benchmarks.gpu.parts import Parts, synchronize
from benchmarks.gpu.record import Record
from benchmarks.gpu.scale import Scale
from megatron_iberis.config import ModelConfig, Recipe, load_recipe
from megatron_iberis.data.batches import Batch
from megatron_iberis.hardware.measure import memory_bytes, peak_flops
from megatron_iberis.model.compilation import compile_layers
from megatron_iberis.model.initialization import InitialWeights, build_model, fill_parameters
from megatron_iberis.model.parameters import shards
from megatron_iberis.model.reference import ReferenceIberis
from megatron_iberis.parallel.groups import ParallelGroups
from megatron_iberis.parallel.start import start_process_group
from megatron_iberis.training.engine import Engine

KERNELS = 10
Weights = dict[str, torch.Tensor]


def run(scale: Scale, record: Record, name: str) -> None:
    """Measures the recipe `name`."""
    device = start_process_group(timeout_minutes=5)
    groups = ParallelGroups.create()
    record.begin("initial weights")
    model = recipe_of(name, scale, 1, 1).model
    weights: Weights = dict(InitialWeights(shards(build_model(model, groups)), seed=0))
    record.begin("the search for the largest micro-batch")
    single = recipe_of(name, scale, 1, 1, "--train.compile=false")
    rows = largest_micro_batch(Engine(single, groups, device, weights), scale.rows)
    while rows:
        release()
        record.begin(f"training steps in micro-batches of {rows} rows")
        try:
            measure_steps(scale, record, Engine(recipe_of(name, scale, rows, scale.rows), groups, device, weights))
            break
        except torch.OutOfMemoryError:  # what the search left in memory can make the difference
            rows //= 2
    if not rows:
        raise RuntimeError("out of memory with a micro-batch of one row")
    release()
    iberis = build_model(model, groups)
    fill_parameters(shards(iberis), weights)
    reference = ReferenceIberis(model)
    reference.load_state_dict(weights)
    record.begin("forward and backward of Iberis")
    passes = {"Iberis": passes_of(iberis, model, device, rows, scale.seconds)}
    record.figures(passes=passes)
    record.begin("torch.compile of Iberis")
    compile_layers(iberis, scale.compiler)
    passes["Iberis, compiled"] = passes_of(iberis, model, device, rows, scale.seconds)
    record.figures(passes=passes)
    del iberis
    release()
    record.begin("forward and backward of the reference")
    passes["reference"] = passes_of(reference, model, device, rows, scale.seconds)
    record.figures(passes=passes)
    release()
    record.begin("torch.compile of the reference", optional=True)
    rows = passes["reference"]["rows"]
    compiled: nn.Module = torch.compile(reference, backend=scale.compiler)
    passes["compiled reference"] = passes_of(compiled, model, device, rows, scale.seconds)
    record.figures(passes=passes)


def recipe_of(name: str, scale: Scale, device_batch: int, rows: int, *words: str) -> Recipe:
    """The recipe with a step of so many rows, in micro-batches of `device_batch`. words: overrides."""
    model = load_recipe(name, [*scale.model, "--train.steps=1000"]).model
    batch = {"train.device_batch": device_batch, "train.batch_tokens": rows * model.sequence_length}
    settings = {"train.steps": 1000, "train.dtype": "bf16", "parallel.zero_stage": 1, **batch}
    return load_recipe(name, [*scale.model, *(f"--{key}={value}" for key, value in settings.items()), *words])


def random_batch(model: ModelConfig, rows: int, seed: int) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    stream = torch.randint(model.vocab_size, (rows, model.sequence_length + 1), generator=generator)
    return Batch(stream[:, :-1].contiguous(), stream[:, 1:].contiguous())


def largest_micro_batch(engine: Engine, most: int) -> int:
    """The largest power of two, up to `most`, of rows that a training step takes; 0 when one row is too many."""
    fits = 0
    try:
        for step in range(most.bit_length() + 1):
            rows = 1 << max(0, step - 1)  # one row twice: the first step makes the optimizer's state
            engine.step(step, [random_batch(engine.recipe.model, rows, step)])
            synchronize(engine.device)
            fits = rows if step else 0
    except torch.OutOfMemoryError:
        pass
    engine.deepspeed.destroy()
    return fits


def measure_steps(scale: Scale, record: Record, engine: Engine) -> None:
    """Times whole steps and their parts; then one step's kernels."""
    recipe, device = engine.recipe, engine.device
    parts = Parts(engine)
    count = engine.accumulation

    def step(number: int) -> None:
        rows = recipe.train.device_batch
        engine.step(number, [random_batch(recipe.model, rows, number * count + i) for i in range(count)])

    for number in range(2):
        step(number)
    parts.reset()
    seconds: list[float] = []
    while len(seconds) < 3 or (sum(seconds) < scale.seconds and len(seconds) < 50):
        batches = [random_batch(recipe.model, recipe.train.device_batch, i) for i in range(count)]
        synchronize(device)
        started = time.perf_counter()
        engine.step(2 + len(seconds), batches)
        synchronize(device)
        seconds.append(time.perf_counter() - started)
    median, mean = statistics.median(seconds), statistics.mean(seconds)
    by_part = {part: total / len(seconds) for part, total in parts.seconds().items()}
    peak = peak_flops(device, recipe.train.dtype)
    rate = recipe.train.batch_tokens / median
    record.figures(
        parameters=recipe.model.parameter_count(),
        rows=recipe.train.device_batch,
        micro_batches=count,
        step_tokens=recipe.train.batch_tokens,
        step_seconds=median,
        steps=len(seconds),
        tokens_per_second=rate,
        mfu=recipe.model.flops_per_token() * rate / peak.flops,
        peak=f"{peak.flops / 1e12:.1f} TFLOP/s ({peak.name})",
        peak_gigabytes=memory_bytes(device) / 1e9,
        parts={**by_part, "other": mean - sum(by_part.values())},
    )
    record.begin("the profile of a step")
    record.figures(kernels=dearest_kernels(lambda: step(1), device))
    engine.deepspeed.destroy()


def dearest_kernels(action: Callable[[], None], device: torch.device) -> list[dict[str, Any]]:
    """What takes most of the device's time in `action`: name, calls, seconds, share of all kernels' time."""
    on_gpu = device.type == "cuda"
    with profile(activities=[ProfilerActivity.CUDA if on_gpu else ProfilerActivity.CPU]) as profiler:
        action()
        synchronize(device)
    attribute = "self_device_time_total" if on_gpu else "self_cpu_time_total"
    events = [(getattr(event, attribute) / 1e6, event) for event in profiler.key_averages()]
    total = sum(seconds for seconds, _ in events)
    events.sort(key=lambda pair: -pair[0])
    return [
        {"name": event.key, "calls": event.count, "seconds": seconds, "share": seconds / total}
        for seconds, event in events[:KERNELS]
        if seconds > 0
    ]


def passes_of(model: nn.Module, config: ModelConfig, device: torch.device, rows: int, limit: float) -> dict[str, Any]:
    """Forward and backward in bf16 at `rows` rows, or half of that, and so on, where it does not fit."""
    model.to(device, torch.bfloat16)
    while rows:
        try:
            return _passes_of(model, config, device, rows, limit)
        except torch.OutOfMemoryError:
            rows //= 2
        model.zero_grad(set_to_none=True)
        release()
    raise RuntimeError("out of memory with a micro-batch of one row")


def _passes_of(
    model: nn.Module, config: ModelConfig, device: torch.device, rows: int, limit: float
) -> dict[str, Any]:
    batch = random_batch(config, rows, 0)
    tokens, targets = batch.tokens.to(device), batch.targets.to(device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    seconds: list[float] = []
    for number in range(52):
        started = time.perf_counter()
        model.zero_grad(set_to_none=True)
        model(tokens, targets).backward()
        synchronize(device)
        if number >= 2:  # the first ones compile, and allocate
            seconds.append(time.perf_counter() - started)
        if len(seconds) >= 3 and sum(seconds) > limit:
            break
    rate = rows * config.sequence_length / statistics.median(seconds)
    return {"rows": rows, "tokens_per_second": rate, "peak_gigabytes": memory_bytes(device) / 1e9}


def release() -> None:
    """Gives memory back that nobody refers to any more: engines are full of cycles."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
