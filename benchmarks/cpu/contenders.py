"""What is timed: functions of no arguments, each of which does one thing once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count

import torch

from benchmarks.cpu.shapes import Dtype, Shape
from benchmarks.cpu.upstream import UpstreamTraining
from megatron_iberis.data.batches import Batch
from megatron_iberis.kernels.linear_cross_entropy import chunked, linear_cross_entropy, reference
from megatron_iberis.model.compilation import compile_layers
from megatron_iberis.model.iberis import Iberis
from megatron_iberis.model.initialization import build_model, fill_parameters
from megatron_iberis.model.parameters import shards
from megatron_iberis.model.reference import ReferenceIberis
from megatron_iberis.parallel.groups import ParallelGroups
from megatron_iberis.parallel.start import start_process_group
from megatron_iberis.training.engine import Engine

DTYPES: dict[Dtype, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16}
DOCUMENT = 128
"""Tokens of a document, on average, where documents are kept apart."""
Step = Callable[[], object]


def start(threads: int) -> ParallelGroups:
    """Makes this process a run of its own, of one rank, with so many threads and a fixed seed."""
    start_process_group(timeout_minutes=30)
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    return ParallelGroups.create()


@contextmanager
def bf16_products() -> Iterator[None]:
    """Inside, oneDNN multiplies fp32 matrices in bf16 and sums in fp32. A precision of its own: tensors stay fp32."""
    products = torch.backends.mkldnn.matmul
    before = products.fp32_precision
    products.fp32_precision = "bf16"
    try:
        yield
    finally:
        products.fp32_precision = before


def random_batch(shape: Shape) -> Batch:
    stream = torch.randint(shape.model.vocab_size, (shape.rows, shape.model.sequence_length + 1))
    return Batch(stream[:, :-1].contiguous(), stream[:, 1:].contiguous())


def passes(shape: Shape, dtype: Dtype, groups: ParallelGroups) -> dict[str, Step]:
    """Forward + backward of Iberis and of the reference, from the same weights and on the same tokens."""
    config = shape.model
    baseline = ReferenceIberis(config)
    batch = random_batch(shape)
    begins = torch.rand(shape.rows, config.sequence_length) < 1 / DOCUMENT
    begins[:, 0] = True
    documents = torch.cat((begins.flatten().nonzero().flatten(), torch.tensor([begins.numel()])))

    def step_of(model: torch.nn.Module, *more: torch.Tensor) -> Step:
        model.to(DTYPES[dtype])

        def step() -> None:
            model.zero_grad(set_to_none=True)
            model(batch.tokens, batch.targets, *more).backward()

        return step

    def iberis() -> Iberis:
        model = build_model(config, groups)
        fill_parameters(shards(model), baseline.state_dict())
        return model

    as_it_is, compiled = iberis(), iberis()
    compile_layers(compiled)
    steps = {"": step_of(as_it_is), "compiled": step_of(compiled)}
    if dtype == "fp32":
        for name, step in dict(steps).items():
            steps[", ".join(filter(None, ("bf16 products", name)))] = bf16_products()(step)
    steps["documents apart"] = step_of(as_it_is, documents)
    return {**steps, "baseline": step_of(baseline)}


def losses(shape: Shape, dtype: Dtype) -> dict[str, Step]:
    """Head and loss, forward + backward: ours, the reference's, and the three matrix products of them alone.

    The products are taken in the same chunks of tokens as ours takes, each into memory that is there.
    """
    tokens, width, vocabulary = shape.tokens, shape.model.width, shape.model.vocab_size
    hidden = torch.randn(tokens, width).to(DTYPES[dtype]).requires_grad_()
    weight = torch.randn(vocabulary, width).to(DTYPES[dtype]).requires_grad_()
    targets = torch.randint(vocabulary, (tokens,))
    rows = min(tokens, chunked.chunk_rows(width, vocabulary, hidden.element_size(), chunked.CPU_CHUNK_BYTES))
    logits = torch.empty(rows, vocabulary, dtype=hidden.dtype)
    d_hidden, d_weight = torch.empty_like(hidden), torch.empty_like(weight)

    def loss_by(function: Callable[..., torch.Tensor]) -> Step:
        return lambda: torch.autograd.grad(function(hidden, weight, targets, shape.model.softcap), (hidden, weight))

    @torch.no_grad()
    def products() -> None:
        for chunk in hidden.split(rows):
            out = torch.mm(chunk, weight.t(), out=logits[: len(chunk)])
            torch.mm(out, weight, out=d_hidden[: len(chunk)])
            torch.mm(out.t(), chunk, out=d_weight)

    return {
        "": loss_by(linear_cross_entropy),
        "baseline": loss_by(reference.linear_cross_entropy),
        "products": products,
    }


def engine_of(shape: Shape, dtype: Dtype, groups: ParallelGroups, compiled: bool = False) -> Engine:
    return Engine(shape.recipe(dtype, compiled), groups, torch.device("cpu"))


def engine_step(engine: Engine, shape: Shape) -> Step:
    """A whole step of the trainer's engine."""
    batch, numbers = random_batch(shape), count()
    return lambda: engine.step(next(numbers), [batch])


def upstream_step(shape: Shape, dtype: Dtype) -> Step:
    """A whole step as upstream makes it."""
    recipe = shape.recipe(dtype)
    training = UpstreamTraining(shape.model, recipe.optimizer, recipe.train.steps, dtype)
    batch, numbers = random_batch(shape), count()
    return lambda: training.step(next(numbers), batch.tokens, batch.targets)
