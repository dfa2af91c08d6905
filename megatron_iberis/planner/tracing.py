"""Counts what torch's operations allocate, compute and send, of fake tensors and of real ones.

torch's own `MemTracker` divides memory by modules, which says nothing of two things that decide here: how much a
layer keeps for its backward pass, and what it needs for a moment beyond that. So storages are counted as they come
and go.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch.distributed import ProcessGroup
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from megatron_iberis.planner.work import Work

COLLECTIVES = {
    "allreduce_": "all_reduce",
    "_allgather_base_": "all_gather",
    "allgather_": "all_gather",
    "_reduce_scatter_base_": "reduce_scatter",
    "alltoall_base_": "all_to_all",
    "broadcast_": "broadcast",
}

PRODUCTS = ("mm", "addmm", "addmm_", "bmm", "baddbmm")
LOOKUPS = ("embedding", "index_select", "gather")
UNFUSED = PRODUCTS + LOOKUPS


class Tracer(TorchDispatchMode):
    """While it is entered: `live` bytes of tensors made since, their `peak`, and the work, added to `work`.

    known: tensors that were there before; a view of one is nothing new. While `fusing` is true the operations between
    products, attention and kernels count as one, as a compiler makes them: what they hand to each other is neither
    written nor read. What is still there when they end counts as written, though a compiler would rather work some of
    it out again: the work of compiled layers is at most what is counted. Memory is that of separate operations.
    """

    def __init__(self, known: Iterable[torch.Tensor] = ()) -> None:
        super().__init__()
        self._storages: dict[int, int] = {}
        self.live = self.peak = 0
        self.work = Work()
        self.fusing = False
        self._made: dict[int, int] = {}  # by the operations that are being fused: bytes by storage
        self._read: set[int] = set()
        for tensor in known:
            self._count(tensor)
        self.live = self.peak = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = function(*args, **(kwargs or {}))
        if function.namespace != "prim":
            for tensor in _tensors(out):
                self._count(tensor)
            self._note(function, args, kwargs or {}, out)
        return out

    def _count(self, tensor: torch.Tensor) -> None:
        if tensor.device.type == "meta":
            return  # holds nothing
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self._storages:
            return
        self._storages[key] = size
        self.live += size
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._gone, key)

    def _gone(self, key: int) -> None:
        self.live -= self._storages.pop(key)
        self._made.pop(key, None)
        self._read.discard(key)  # the next one may have the same number

    def end_fusion(self) -> None:
        """What has been fused so far is an operation that is through."""
        if self._made or self._read:
            self.work.bytes += sum(self._made.values())
            self.work.operations += 1
            self._made.clear()
            self._read.clear()

    def _fuse(self, inputs: list[torch.Tensor], outputs: list[torch.Tensor]) -> None:
        for tensor in inputs:
            key = tensor.untyped_storage()._cdata
            if key not in self._made and key not in self._read:
                self._read.add(key)
                self.work.bytes += _bytes(tensor)
        for tensor in outputs:
            self._made[tensor.untyped_storage()._cdata] = _bytes(tensor)

    def _note(self, function: Any, args: Any, kwargs: Any, out: Any) -> None:
        name = function.overloadpacket.__name__
        if function.namespace == "c10d":
            self.end_fusion()
            self._note_collective(COLLECTIVES.get(name, name), args)
            return
        inputs, outputs = list(_tensors((args, kwargs))), list(_tensors(out))
        if function.is_view or name in ("detach", "empty", "empty_like", "_unsafe_view", "new_empty"):
            return
        changed = [inputs[0]] if function._schema.is_mutable and inputs else []
        if self.fusing and function.namespace == "aten" and name not in UNFUSED and "scaled_dot_product" not in name:
            self._fuse(inputs, changed or outputs)
            return
        self.end_fusion()
        self.work.operations += 1
        if name in PRODUCTS:
            a, b = list(_tensors(args))[-2:]  # without `out`, which has a name
            batch = a.shape[0] if a.dim() == 3 else 1
            self.work.products.append(((a.shape[-2], b.shape[-1], a.shape[-1]), batch))
        elif "scaled_dot_product" in name:
            self._note_attention(name, args, kwargs)
        elif name in LOOKUPS:
            self.work.bytes += 2 * sum(map(_bytes, outputs))  # of the table, only the rows that are asked for
        else:
            self.work.bytes += sum(map(_bytes, inputs)) + sum(map(_bytes, changed or outputs))

    def _note_attention(self, name: str, args: Any, kwargs: Any) -> None:
        """2 products of [T, D] x [D, S] forward, 5 backward; of causal attention, half of each is worked out."""
        q, k = (args[1:3] if "backward" in name else args[:2]) if len(args) > 1 else (kwargs["query"], kwargs["key"])
        flops = (
            2.0 * q.shape[0] * q.shape[1] * q.shape[2] * k.shape[2] * q.shape[3] * (5 if "backward" in name else 2)
        )
        causal = kwargs.get("is_causal", any(argument is True for argument in args))
        self.work.attention_flops += flops / 2 if causal else flops

    def _note_collective(self, collective: str, args: Any) -> None:
        sizes, group = [], "?"
        for argument in args:
            if isinstance(argument, torch.ScriptObject) and group == "?":
                group = _group_name(argument)
            sizes += [sum(map(_bytes, _tensors(argument)))]
        self.work.sent[collective, group] += max(sizes)
        self.work.messages[collective, group] += 1


def _group_name(boxed: Any) -> str:
    try:
        return str(ProcessGroup.unbox(boxed).group_name)
    except (RuntimeError, TypeError):  # a reduction's kind, not a group
        return "?"


def _tensors(tree: Any) -> Iterator[torch.Tensor]:
    return (leaf for leaf in tree_iter(tree) if isinstance(leaf, torch.Tensor))


def _bytes(tensor: torch.Tensor) -> int:
    """Of what there is of it: an expanded tensor is read from fewer."""
    return min(tensor.numel() * tensor.element_size(), tensor.untyped_storage().nbytes())
