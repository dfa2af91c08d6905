"""What this machine does, measured: `iberis plan --calibrate`. Kept in the user's cache folder, by machine.

* matrix products of the recipe's own shapes, Newton-Schulz's among them; attention; the bandwidth of a sum
* each kind of layer, the embedding, and head with loss, forward and backward, at the recipe's sizes: how much longer
  the operations that are no products take than their bytes at that bandwidth
* of several ranks on one machine: all-reduce over size. All ranks measure at the same time, as they will train.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from megatron_iberis.config import Recipe
from megatron_iberis.hardware.measure import peak_flops
from megatron_iberis.kernels.attention import causal_attention
from megatron_iberis.launcher import free_port
from megatron_iberis.model.initialization import build_model
from megatron_iberis.parallel.node import cores_of_this_node
from megatron_iberis.planner.layers import Case, Stages, alone, cast, kinds_of, parts_of, stand_in_groups
from megatron_iberis.planner.links import Wires
from megatron_iberis.planner.parameters import heaviest_owner, parameters_of
from megatron_iberis.planner.step_time import Rates
from megatron_iberis.planner.work import Part, Shape, Work
from megatron_iberis.storage.atomic import write_atomic
from megatron_iberis.training.newton_schulz import precision, products

LONGEST_SIDE = 16384
"""Products of longer sides run at the same rate."""
MOST_TOKENS = 2048
"""Of the layers that are timed on a CPU."""
MESSAGES = (2**16, 2**20, 2**24, 2**26)
"""Bytes of the all-reduces."""


@dataclass
class Calibration:
    """Of one kind of machine with so many ranks on it. FLOP/s, bytes a second, seconds."""

    peak: dict[str, float] = field(default_factory=dict)
    """By dtype."""
    bandwidth: float = 0.0
    products: dict[str, float] = field(default_factory=dict)
    """By "dtype m n k"."""
    attention: dict[str, float] = field(default_factory=dict)
    factors: dict[str, dict[str, float]] = field(default_factory=dict)
    """By dtype (and whether layers are compiled), then by kind of part."""
    link: float = 0.0
    latency: float = 0.0

    def rates(self, dtype: str, gpu: bool, per_node: int, wires: Wires, compiled: bool = False) -> Rates | None:
        """What it says of a dtype; None where that was not measured. wires: for what was not measured.

        compiled: of layers that are.
        """
        if dtype not in self.peak or (compiled and _factors_key(dtype, compiled) not in self.factors):
            return None
        products: dict[Shape, float] = {}
        for key, rate in self.products.items():
            kind, *sides = key.split()
            if kind == dtype:
                m, n, k = map(int, sides)
                products[m, n, k] = rate
        measured = replace(wires, link=self.link, latency=self.latency) if self.link else wires
        return Rates(
            self.peak[dtype],
            self.bandwidth,
            measured,
            gpu,
            products,
            self.attention[dtype],
            self.factors.get(_factors_key(dtype, compiled), {}),
            calibrated=True,
            per_node=per_node,
        )


def machine_name(device: torch.device, ranks: int) -> str:
    """By which a calibration is kept: GPU or processor, threads, ranks."""
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    else:
        name = f"{_processor()} {threads_of_a_rank(ranks)} threads"
    return "".join(c if c.isalnum() else "-" for c in f"{name} {ranks} ranks").lower()


def threads_of_a_rank(ranks: int) -> int:
    """As many as a run gives each of its ranks (parallel/start.py)."""
    return int(os.environ.get("OMP_NUM_THREADS") or max(1, cores_of_this_node() // ranks))


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def calibration_file(name: str) -> Path:
    """In $XDG_CACHE_HOME or ~/.cache."""
    root = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(root) / "megatron_iberis" / "calibration" / f"{name}.json"


def load_calibration(name: str) -> Calibration | None:
    """What was measured on such a machine; None where nothing was, or the file is of another version."""
    try:
        return Calibration(**json.loads(calibration_file(name).read_text()))
    except (OSError, ValueError, TypeError):
        return None


def save_calibration(name: str, calibration: Calibration) -> Path:
    """Keeps it, beside what was measured for other recipes."""
    known = load_calibration(name)
    if known:
        for kind in ("peak", "products", "attention", "factors"):
            setattr(calibration, kind, {**getattr(known, kind), **getattr(calibration, kind)})
    path = calibration_file(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, json.dumps(asdict(calibration), indent=1).encode())
    return path


def calibrate(recipe: Recipe, device: torch.device, ranks: int) -> tuple[str, Calibration]:
    """Measures on this machine with so many ranks at once; the name to keep it by."""
    if ranks == 1:
        return machine_name(device, 1), measure(recipe, device)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "calibration.json"
        torch.multiprocessing.spawn(_rank, (recipe, device.type, ranks, free_port(), str(path)), nprocs=ranks)
        found = json.loads(path.read_text())
    return found.pop("name"), Calibration(**found)


def _rank(rank: int, recipe: Recipe, kind: str, ranks: int, port: int, path: str) -> None:
    device = torch.device(kind, rank) if kind == "cuda" else torch.device(kind)
    if kind == "cuda":
        torch.cuda.set_device(device)
    else:
        torch.set_num_threads(threads_of_a_rank(ranks))
    backend = "nccl" if kind == "cuda" else "gloo"
    dist.init_process_group(backend, init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=ranks)
    found = measure(recipe, device)
    found.latency, found.link = _all_reduce(device, ranks)
    if rank == 0:
        Path(path).write_text(json.dumps({"name": machine_name(device, ranks), **asdict(found)}))
    dist.barrier()
    dist.destroy_process_group()


def measure(recipe: Recipe, device: torch.device) -> Calibration:
    """All but the messages, on this rank."""
    dtype, model, train = recipe.train.dtype, recipe.model, recipe.train
    rows = train.device_batch
    if device.type == "cpu":
        rows = max(1, min(rows, MOST_TOKENS // model.sequence_length))
    case = Case(model, dtype, rows, gpu=device.type == "cuda", compiled=train.compile)
    found = Calibration()
    with alone():
        parts = parts_of(case)
        found.bandwidth = _bandwidth(device)
        shapes = _shapes(recipe, parts.total(kinds_of(model)))
        found.products = {f"{dtype} {m} {n} {k}": _product(m, n, k, dtype, device) for m, n, k in shapes}
        found.peak[dtype] = max([peak_flops(device, dtype).flops, *found.products.values()])
        found.attention[dtype] = _attention(case, device)
        rates = found.rates(dtype, case.gpu, 1, Wires(1.0, 1.0, 0.0, 0.0))
        assert rates
        found.factors[_factors_key(dtype, train.compile)] = _factors(case, device, rates)
    return found


def _shapes(recipe: Recipe, work: Work) -> list[Shape]:
    """Those that take a hundredth of all, and Newton-Schulz's."""
    shapes = {shape for shape, _ in work.products if 2.0 * shape[0] * shape[1] * shape[2] > 1e-4 * work.product_flops}
    if recipe.optimizer.kind == "muon":
        for shape in set(heaviest_owner(parameters_of(recipe.model, 1), 1, recipe.optimizer).shapes):
            steps = recipe.optimizer.newton_schulz_steps
            shapes |= {product for product, _ in products(shape, steps, precision(recipe.optimizer))}
    return sorted({(min(m, LONGEST_SIDE), min(n, LONGEST_SIDE), min(k, LONGEST_SIDE)) for m, n, k in shapes})


def _product(m: int, n: int, k: int, dtype: str, device: torch.device) -> float:
    a, b = (torch.full(shape, 0.5, dtype=_torch(dtype), device=device) for shape in ((m, k), (k, n)))
    return 2.0 * m * n * k / _best(lambda: torch.mm(a, b), device)


def _bandwidth(device: torch.device) -> float:
    a, b = (torch.ones(2**26 if device.type == "cuda" else 2**24, device=device) for _ in range(2))
    out = torch.empty_like(a)
    return 3.0 * a.nbytes / _best(lambda: torch.add(a, b, out=out), device)


def _attention(case: Case, device: torch.device) -> float:
    """Forward and backward of the recipe's rows, or as many as a CPU does quickly."""
    model = case.model
    shape = (model.sequence_length, case.rows, model.heads, model.width // model.heads)
    q, k, v = (torch.randn(shape, device=device).to(_torch(case.dtype)).requires_grad_() for _ in range(3))
    gradient = torch.ones(shape, device=device, dtype=q.dtype)
    flops = 7.0 * shape[1] * shape[2] * shape[0] ** 2 * shape[3]  # 2 + 5 products, half of each
    return flops / _best(lambda: causal_attention(q, k, v).backward(gradient), device)


def _factors_key(dtype: str, compiled: bool) -> str:
    return f"{dtype}, compiled" if compiled else dtype


def _factors(case: Case, device: torch.device, rates: Rates) -> dict[str, float]:
    """Of each kind of part: the time beyond its products and attention, over its bytes at the bandwidth."""
    counted = parts_of(case)
    seconds = _part_seconds(case, device)
    found = {}
    for name, measured in seconds.items():
        part = counted.layers.get(name) or {"embedding": counted.embedding, "head": counted.head}[name]
        flops = Work(products=part.work.products, attention_flops=part.work.attention_flops)
        rest = measured - rates.seconds(flops)
        found[name] = max(0.05, rest * rates.bandwidth / part.work.bytes)
    return found


class _Timed(Stages):
    """Stages of a pass, timed instead of traced."""

    def __init__(self, model: Any, device: torch.device) -> None:
        self.seconds: dict[int, float] = {}
        self._device, self._since = device, 0.0
        super().__init__(Work(), model)  # type: ignore[arg-type]

    def enter(self, part: Part | None) -> None:
        _wait(self._device)
        now = time.perf_counter()
        if self._part is not None:
            self.seconds[id(self._part)] = self.seconds.get(id(self._part), 0.0) + now - self._since
        self._part, self._since = part, now


def _part_seconds(case: Case, device: torch.device) -> dict[str, float]:
    """Medians of each part's forward and backward pass."""
    two = replace(case.model, depth=2)
    kinds = ["attention" if two.is_attention(layer) else "slc2" for layer in range(2)]
    found: dict[str, list[float]] = {}
    model: Any = build_model(two, stand_in_groups(1, 1)).to(device)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.02)
    cast(model, _torch(case.dtype))
    if case.compiled:
        for layer in model.decoder.layers:  # without the hooks that listen to it
            layer.forward = torch.compile(layer.forward, dynamic=False)
    tokens = torch.zeros(case.rows, two.sequence_length, dtype=torch.long, device=device)
    for attempt in range(6):
        timed = _Timed(model, device)
        loss = model(tokens, tokens)
        timed.forward_is_done()
        loss.backward()
        timed.enter(None)
        timed.leave()
        if attempt == 0:
            continue  # threads start, libraries load, layers are compiled
        named = [("embedding", timed.embedding), ("head", timed.head), *zip(kinds, timed.layers, strict=True)]
        for name, part in named:
            found.setdefault(name, []).append(timed.seconds[id(part)])
    return {name: statistics.median(seconds) for name, seconds in found.items()}


def _all_reduce(device: torch.device, ranks: int) -> tuple[float, float]:
    """Seconds of the smallest message, and bytes a second that a rank sends in the largest."""
    seconds = []
    for size in MESSAGES:
        tensor = torch.ones(size // 4, device=device)
        seconds.append(_best(lambda tensor=tensor: dist.all_reduce(tensor), device))  # type: ignore[misc]
    passed = 2.0 * (ranks - 1) / ranks * MESSAGES[-1]
    return seconds[0], passed / max(seconds[-1] - seconds[0], 1e-9)


def _best(action: Callable[[], Any], device: torch.device, times: int = 5) -> float:
    """The median of some, after one that does not count."""
    seconds = []
    for _ in range(1 + times):
        _wait(device)
        started = time.perf_counter()
        action()
        _wait(device)
        seconds.append(time.perf_counter() - started)
    return max(statistics.median(seconds[1:]), 1e-9)


def _torch(dtype: str) -> torch.dtype:
    return torch.bfloat16 if dtype == "bf16" else torch.float32


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
