"""What the tracer counts is what torch's allocator hands out, and the work is what the model's formula says."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from megatron.core import parallel_state
from torch._subclasses.fake_tensor import FakeTensor

from megatron_iberis.config import ModelConfig, load_recipe
from megatron_iberis.kernels.attention import causal_attention
from megatron_iberis.model.reference import ReferenceIberis
from megatron_iberis.parallel.third_party import prepare_megatron
from megatron_iberis.planner import layers
from megatron_iberis.planner.layers import Case, kinds_of, parts_of
from megatron_iberis.planner.tracing import Tracer

MODEL = ModelConfig(depth=4, width=64, heads=4, vocab_size=256, sequence_length=64).resolved()


def test_tracer_counts_what_the_allocator_hands_out() -> None:
    model, tokens = ReferenceIberis(MODEL), torch.randint(256, (8, 64))

    def step() -> None:
        model(tokens, tokens).backward()
        model.zero_grad(set_to_none=True)

    step()
    tracer = Tracer([*model.parameters(), tokens])
    with tracer:
        step()
    profile = torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True)
    with profile:
        step()
    recorded = profile.profiler
    assert recorded
    events = [e for e in recorded.kineto_results.events() if e.name() == "[memory]"]
    now = most = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    assert tracer.peak == pytest.approx(most, rel=0.03)


def test_work_is_what_the_models_own_formula_says() -> None:
    recipe = load_recipe("d12")
    work = parts_of(Case(recipe.model, "bf16", 4)).total(kinds_of(recipe.model))
    tokens = 4 * recipe.model.sequence_length
    counted = work.product_flops + 12 / 7 * work.attention_flops  # the formula: attention whole, 3 times its forward
    assert counted / tokens == pytest.approx(recipe.model.flops_per_token(), rel=0.01)


def test_recomputation_runs_the_layers_once_more() -> None:
    once, again = (parts_of(Case(MODEL, "fp32", 2, recompute=recompute)) for recompute in (False, True))
    for kind, part in once.layers.items():
        assert again.layers[kind].work.product_flops == pytest.approx(4 / 3 * part.work.product_flops, rel=0.01)
        assert again.layers[kind].kept < 0.2 * part.kept


def test_a_large_micro_batch_is_extrapolated_to_what_it_takes() -> None:
    small = replace(MODEL, vocab_size=60_000, sequence_length=256)
    case = Case(small, "bf16", 24, gpu=False)  # 34 rows of logits in a chunk, so this is 180 of them
    whole = layers._traced(replace(case, model=replace(small, depth=2)))
    line = parts_of(case)
    for name in ("kept", "forward", "backward"):
        for a, b in ((whole.layers["slc2"], line.layers["slc2"]), (whole.head, line.head)):
            assert getattr(b, name) == pytest.approx(getattr(a, name), rel=0.02), name
    assert line.head.work.product_flops == pytest.approx(whole.head.work.product_flops, rel=0.02)
    assert line.layers["slc2"].work.product_flops == whole.layers["slc2"].work.product_flops


def test_messages_of_tensor_parallelism_are_counted() -> None:
    rows, split = 2, parts_of(Case(MODEL, "fp32", 2, tp=2))
    hidden = rows * MODEL.sequence_length * MODEL.width * 4
    sent = split.layers["attention"].work.sent
    assert sent["all_reduce", "tp"] == pytest.approx(4 * hidden, rel=0.05)  # mixer and MLP, forward and backward
    assert not parts_of(Case(MODEL, "fp32", 2)).layers["attention"].work.sent


def test_a_run_beside_which_layers_are_traced_keeps_its_own_buffers() -> None:
    prepare_megatron()
    buffer = parallel_state._GLOBAL_MEMORY_BUFFER
    real = torch.nn.functional.rms_norm
    parts_of(Case(MODEL, "fp32", 3, tp=2, sequence_parallel=True))
    assert parallel_state._GLOBAL_MEMORY_BUFFER is buffer
    assert not any(isinstance(tensor, FakeTensor) for tensor in buffer.buffer.values())
    assert torch.nn.functional.rms_norm is real
    assert not torch.distributed.is_initialized()


def test_attention_counts_the_half_that_is_worked_out() -> None:
    q = torch.randn(32, 2, 4, 16, requires_grad=True)
    with Tracer() as tracer:
        causal_attention(q, q, q).sum().backward()
    assert tracer.work.attention_flops == 7 * 2 * 4 * 32 * 32 * 16


def test_fused_operations_neither_write_nor_read_what_they_hand_to_each_other() -> None:
    x, weight = torch.randn(64, 32), torch.randn(32, 16)
    tracer = Tracer([x, weight])
    tracer.fusing = True
    with tracer:
        y = (x * 2 + 1).relu() * x
        product = y @ weight
        product.sigmoid().square()
    tracer.end_fusion()
    assert tracer.work.bytes == 2 * x.nbytes + product.nbytes  # y is written; of the last run nothing is kept
    assert tracer.work.operations == 3


def test_compiled_layers_do_the_same_products_and_move_less() -> None:
    model = load_recipe("d20").model
    apart, compiled = (parts_of(Case(model, "bf16", 16, compiled=value)) for value in (False, True))
    for kind, part in apart.layers.items():
        fused = compiled.layers[kind]
        assert fused.work.products == part.work.products
        assert fused.work.attention_flops == part.work.attention_flops
        assert 0.2 * part.work.bytes < fused.work.bytes < 0.65 * part.work.bytes
        assert fused.kept == part.kept
    for before, after in ((apart.head, compiled.head), (apart.embedding, compiled.embedding)):
        assert before.work == after.work
