"""Log-probabilities of answers under the model that a run of preferences begins with.

* The training engine works them out itself, before the first step, on the rows that it will train on: there is no
  second model, and no other kernel that could round differently.
* They are kept in the run's folder, each with its pair's number and hash, under the hashes of template and model:
  a run that is resumed has other weights by then and reads them. What belongs to other pairs is not taken.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from megatron_iberis.data.batches import Batch
from megatron_iberis.data.preference_rows import PreferenceRows
from megatron_iberis.errors import InputError
from megatron_iberis.parallel.agreement import raise_on_any_rank
from megatron_iberis.storage.atomic import write_atomic
from megatron_iberis.training.engine import Engine
from megatron_iberis.training.preference import answers_of

Table = npt.NDArray[np.float64]


@torch.no_grad()
def log_probabilities(engine: Engine, rows: PreferenceRows) -> Table:
    """Of each pair's two answers under the engine's weights: [pairs, 2]. Called by all ranks, the same on all.

    Data-parallel ranks share the rows; all run as many micro-batches (under ZeRO stage 3 each forward pass is a
    collective).
    """
    size, groups = engine.recipe.train.device_batch, engine.groups
    found = torch.zeros(len(rows.pairs), 2, dtype=torch.float64, device=engine.device)
    engine.deepspeed.eval()
    for first in range(0, len(rows.rows), size * groups.dp_size):
        own = first + groups.dp_rank * size
        answers, _ = answers_of(engine.deepspeed, Batch.of(rows.read_in_order(own, size)).to(engine.device))
        found[rows.pairs_in(own, size)] = answers.log_probabilities
    dist.all_reduce(found, group=groups.dp)
    return found.cpu().numpy()


@dataclass(frozen=True)
class ReferenceFile:
    """Where the log-probabilities of some rows lie. hashes: by name, of the template and of the model."""

    path: Path
    hashes: Mapping[str, str]

    def give(self, engine: Engine, rows: PreferenceRows, resumed: bool, say: Callable[[str], None]) -> None:
        """Gives the rows their reference: what is kept here, or else what the engine, at its start, works out.

        Called by all ranks together, before the first step. say: is told where they are from, in a line. Raises
        InputError when the run is resumed and there are none of its pairs, template and model here.
        """
        kept: list[Any] = [(*self._kept(rows), resumed) if dist.get_rank() == 0 else None]
        dist.broadcast_object_list(kept)
        table, problem, resumed = kept[0]
        what = f"reference log-probabilities of {len(rows.pairs):,} pairs"
        if table is not None:
            rows.reference = table
            say(f"{what} from {self.path}")
            return
        if resumed:
            raise InputError(
                f"{problem}, and the model that the run began with has been trained since: put back the file and the "
                "pairs that were there, or start a new run with another --run.folder."
            )
        say(f"{what}: being worked out")
        started = time.monotonic()
        rows.reference = log_probabilities(engine, rows)
        raise_on_any_rank(self._written(rows, rows.reference) if dist.get_rank() == 0 else None)
        say(f"{what}: worked out in {time.monotonic() - started:.1f} s, kept in {self.path}")

    def read(self, rows: PreferenceRows) -> Table:
        """[pairs, 2]. Raises InputError when they are not there, or are of other pairs, template or model."""
        try:
            with safe_open(self.path, framework="numpy") as file:
                recorded = file.metadata() or {}
                kept = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no mapping)
        except FileNotFoundError:
            raise InputError(f"{self.path}, the run's reference log-probabilities, is missing") from None
        except (SafetensorError, OSError) as error:
            raise InputError(f"{self.path}, the run's reference log-probabilities, is damaged ({error})") from None
        for name, value in self.hashes.items():
            if recorded.get(name) != value:
                raise InputError(f"the reference log-probabilities in {self.path} are of another {name}")
        wanted = _keys(rows)
        if any(kept[name].shape != wanted[name].shape for name in wanted):
            raise InputError(
                f"the reference log-probabilities in {self.path} are of {len(kept['number']):,} pairs, and there are "
                f"{len(rows.pairs):,} now"
            )
        for i, pair in enumerate(rows.pairs):
            if any(kept[name][i].tobytes() != wanted[name][i].tobytes() for name in wanted):
                raise InputError(f"{pair.where} is another pair than the one that {self.path} has an entry of")
        table: Table = kept["log_probability"]
        return table

    def write(self, rows: PreferenceRows, found: Table) -> None:
        """Whole or not at all."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(self.path, save({**_keys(rows), "log_probability": found}, dict(self.hashes)))

    def _kept(self, rows: PreferenceRows) -> tuple[Table | None, str]:
        try:
            return self.read(rows), ""
        except InputError as error:
            return None, str(error)

    def _written(self, rows: PreferenceRows, found: Table) -> str | None:
        try:
            self.write(rows, found)
        except OSError as error:
            return f"{self.path} cannot be written ({error.strerror}): give another --run.folder."
        return None


def _keys(rows: PreferenceRows) -> dict[str, npt.NDArray[Any]]:
    """What tells the pairs from others, in their order."""
    return {
        "number": np.array([pair.number for pair in rows.pairs], np.int64),
        "hash": np.frombuffer(b"".join(pair.hash() for pair in rows.pairs), np.uint8).reshape(-1, 16),
    }
