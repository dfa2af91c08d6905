"""Documents in a row that are kept apart do not see each other, at any layout."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist

from megatron_iberis.config import ModelConfig
from megatron_iberis.model.documents import Documents
from megatron_iberis.model.initialization import build_model, fill_parameters
from megatron_iberis.model.parameters import shards
from megatron_iberis.model.reference import ReferenceIberis
from tests.support.comparison import random_batch, randomise
from tests.support.ranks import Ranks, groups_of

LENGTHS = [[9, 1, 2, 20], [17, 15]]  # of the documents of two rows
CU_SEQLENS = torch.tensor([0, 9, 10, 12, 32, 49, 64], dtype=torch.int32)
CONFIG = {
    kv: ModelConfig(
        depth=5, width=32, heads=4, kv_heads=kv, mlp_hidden=64, vocab_size=63, sequence_length=32, inner_norm=kv == 4
    )
    for kv in (1, 4)
}


def documents_alone(kv_heads: int) -> tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]:
    """(logits [2, T, V], mean loss, gradients by name) of the reference, which is given each document by itself."""
    reference = ReferenceIberis(CONFIG[kv_heads])
    randomise(reference, 0)
    tokens, targets = random_batch(CONFIG[kv_heads], 0)
    logits, loss = [], torch.zeros(())
    for row, lengths in enumerate(LENGTHS):
        pieces = zip(tokens[row].split(lengths), targets[row].split(lengths), strict=True)
        for text, wanted in pieces:
            with torch.no_grad():
                logits.append(reference(text.unsqueeze(0))[0])
            loss = loss + reference(text.unsqueeze(0), wanted.unsqueeze(0))
    loss = loss / (targets >= 0).sum()
    loss.backward()
    gradients = {name: parameter.grad for name, parameter in reference.named_parameters()}
    return torch.cat(logits).unflatten(0, (2, -1)), loss.detach(), gradients  # type: ignore[return-value]


def deviations(kv_heads: int, tensor: int, sequence: bool, context: int, recompute: bool) -> dict[str, float]:
    """Runs on a rank: how far rows of several documents are from the documents alone."""
    logits, loss, gradients = documents_alone(kv_heads)
    groups = groups_of(tensor, context)
    model = build_model(CONFIG[kv_heads], groups, sequence, recompute)
    reference = ReferenceIberis(CONFIG[kv_heads])
    randomise(reference, 0)
    fill_parameters(shards(model), reference.state_dict())
    tokens, targets = random_batch(CONFIG[kv_heads], 0)
    with torch.no_grad():
        apart = {"logits": (model(tokens, cu_seqlens=CU_SEQLENS) - logits).abs().max().item()}
    found = model(tokens, targets, CU_SEQLENS) / (targets >= 0).sum()
    found.backward()
    total = found.detach()
    apart["loss"], apart["gradients"] = (total - loss).abs().item(), 0.0
    floor = 0.01 * max(gradient.norm().item() for gradient in gradients.values())
    for shard in shards(model):
        got, want = shard.parameter.grad, gradients[shard.name]
        assert got is not None
        dist.all_reduce(got, group=groups.cp)
        error = (got - shard.of(want)).norm() / want.norm().clamp(min=floor)
        apart["gradients"] = max(apart["gradients"], error.item())
    return apart


LAYOUTS = [  # kv heads, tensor, sequence, context, recompute
    (4, 1, False, 1, False),
    (1, 1, False, 1, True),
    (4, 2, True, 1, False),
    (4, 1, False, 2, False),  # all-to-all over heads
    (1, 1, False, 2, True),  # keys and values are gathered
]


@pytest.mark.parametrize(("kv_heads", "tensor", "sequence", "context", "recompute"), LAYOUTS)
def test_each_document_is_as_if_it_were_alone(
    request: pytest.FixtureRequest, kv_heads: int, tensor: int, sequence: bool, context: int, recompute: bool
) -> None:
    ranks: Ranks = request.getfixturevalue("one_rank" if tensor * context == 1 else "two_ranks")
    for apart in ranks(deviations, kv_heads, tensor, sequence, context, recompute):
        assert apart["logits"] <= 1e-4
        assert apart["loss"] <= 5e-6
        assert apart["gradients"] <= 5e-5


def logits_before_and_after(first_document: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Runs on a rank: logits [1, T, V] of a row whose first document is changed in between."""
    model = build_model(CONFIG[4], groups_of(1))
    reference = ReferenceIberis(CONFIG[4])
    randomise(reference, 0)
    fill_parameters(shards(model), reference.state_dict())
    tokens = random_batch(CONFIG[4], 0)[0][:1]
    borders = torch.tensor([0, first_document, 32])
    changed = tokens.clone()
    changed[:, :first_document] = (tokens[:, :first_document] + 1) % 63
    with torch.no_grad():
        return model(tokens, cu_seqlens=borders), model(changed, cu_seqlens=borders)


@pytest.mark.parametrize("first_document", [1, 10, 31])
def test_changing_the_first_document_does_not_change_the_logits_of_the_second(
    one_rank: Ranks, first_document: int
) -> None:
    ((before, after),) = one_rank(logits_before_and_after, first_document)
    assert torch.equal(before[:, first_document:], after[:, first_document:])
    assert (before[:, :first_document] != after[:, :first_document]).any(-1).all()


@pytest.mark.parametrize("chunk", [slice(0, 32), slice(16, 32)])
def test_lengths_and_places_are_those_of_the_borders(chunk: slice) -> None:
    documents = Documents.of(CU_SEQLENS, 2, chunk, torch.device("cpu"))
    assert documents.rows == tuple(map(tuple, LENGTHS))
    places = torch.tensor([[t for n in row for t in range(n)] for row in LENGTHS])
    assert torch.equal(documents.positions, places[:, chunk].t())


def test_a_row_begins_a_document_though_no_border_says_so() -> None:
    documents = Documents.of(torch.tensor([0, 9, 49, 64]), 2, slice(0, 32), torch.device("cpu"))
    assert documents.rows == ((9, 23), (17, 15))
