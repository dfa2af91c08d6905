"""Saves a run in the background: every rank writes the full tensors that it owns, to one file each.

* The training loop waits for a copy of the state in memory, no longer (`snapshot.py`). A thread on each rank writes
  it, syncs it to the disk and works out its checksums.
* The threads agree over a process group of their own, so that the training loop's collectives may go on meanwhile.
  When all have written, rank 0 adds the manifest and renames the folder; when one can't, none does.
* One save at a time: the next one waits for it.

`model-RANK.safetensors`, `optimizer-RANK.safetensors`: tensors by name. `state.json`: steps done, the optimizer's
own count of them, and what the token files held; the position in the data is the step. `rng.safetensors`: the random
state of rank 0's torch.
"""

from __future__ import annotations

import json
import secrets
import shutil
import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

import torch.distributed as dist

from megatron_iberis.checkpoint import files
from megatron_iberis.checkpoint.snapshot import Snapshot, take_snapshot
from megatron_iberis.checkpoint.verify import Record, describe, write_manifest
from megatron_iberis.checkpoint.weights import save_tensors
from megatron_iberis.config import Recipe, save_recipe
from megatron_iberis.errors import InputError
from megatron_iberis.parallel.agreement import raise_on_any_rank
from megatron_iberis.run_folder import RECIPE, TOKENIZER
from megatron_iberis.sharding.state import TrainingState
from megatron_iberis.storage.atomic import sync
from megatron_iberis.storage.locks import Lock

T = TypeVar("T")


@dataclass(frozen=True)
class Outcome:
    """How a save ended: the same on all ranks. `problem`: empty, or why there is no checkpoint.

    notes: why older ones are still there that should have been removed.
    """

    step: int
    folder: Path
    seconds: float
    problem: str
    notes: tuple[str, ...] = ()


class CheckpointWriter:
    """Writes the checkpoints of one run. Made and called by all ranks together.

    on_progress: called from the thread that saves, file by file. token_files: by path the `identity` of what the run
    reads, to be compared when it is resumed. Raises InputError on all ranks when another run is writing to `root`, or
    one of the ranks does not see that folder.
    """

    def __init__(
        self,
        root: Path,
        recipe: Recipe,
        tokenizer: Path | None,
        state: TrainingState,
        on_progress: Callable[[], None] = lambda: None,
        token_files: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        self._token_files = token_files or {}
        self._on_progress = on_progress
        self.root, self.recipe, self.tokenizer, self.state = root, recipe, tokenizer, state
        self.rank, self.lead = dist.get_rank(), dist.get_rank() == 0
        self._claim: Lock | None = None
        raise_on_any_rank(self._take_claim() if self.lead else None)
        self._group = dist.new_group(backend="gloo")
        self._check_shared()
        self._thread: threading.Thread | None = None
        self._ended: SimpleQueue[Outcome] = SimpleQueue()

    def save(self, step: int) -> float:
        """Starts to save the run as it is, after `step` steps; returns the seconds waited for the save before."""
        started, in_flight = time.monotonic(), self._thread is not None and self._thread.is_alive()
        self._wait()
        waited = time.monotonic() - started if in_flight else 0.0
        snapshot = take_snapshot(self.state, step)
        # a daemon: it must not keep a process alive whose other ranks are gone
        self._thread = threading.Thread(target=self._save, args=(snapshot,), name="checkpoint", daemon=True)
        self._thread.start()
        return waited

    def outcomes(self) -> list[Outcome]:
        """The saves that have ended since the last call."""
        found = []
        while True:
            try:
                found.append(self._ended.get_nowait())
            except Empty:
                return found

    def finish(self) -> None:
        """Waits for the save in flight. No save may follow."""
        self._wait()
        if self._claim is not None:
            self._claim.close()
            self._claim = None

    def _take_claim(self) -> str | None:
        try:
            self._claim = files.claim_folder(self.root)
        except (OSError, ValueError) as error:
            return str(error)
        return None

    def _check_shared(self) -> None:
        """Raises InputError on all ranks when one of them sees another folder there than rank 0 does."""
        word, mark = [secrets.token_hex(8)], self.root / ".shared"
        dist.broadcast_object_list(word)
        self._together(lambda: mark.write_text(word[0]) if self.lead else 0)
        seen = mark.is_file() and mark.read_text() == word[0]
        where = f"rank {self.rank} on {socket.gethostname()} does not see the folder {self.root} of rank 0"
        raise_on_any_rank(
            None if seen else f"{where}: put the run's folder on a disk that all nodes share (--run.folder)."
        )
        if self.lead:
            mark.unlink()

    def _wait(self) -> None:
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _save(self, snapshot: Snapshot) -> None:
        """What the thread does: from the snapshot to a complete checkpoint, or to none."""
        started, problem, notes = time.monotonic(), "", list[str]()
        partial = self.root / f"{files.name_of(snapshot.step)}{files.PARTIAL}"
        try:
            self._together(lambda: files.begin(self.root, snapshot.step) if self.lead else None)
            parts = self._together(lambda: self._write(partial, snapshot))
            records = {name: record for part in parts for name, record in part.items()}
            done = self._together(lambda: self._complete(partial, snapshot.step, records) if self.lead else [])
            notes = done[0]
        except Exception as error:
            problem = str(error) if isinstance(error, InputError) else files.explain_save(error, self.root)
            if self.lead:
                files.abandon(partial)
        seconds = time.monotonic() - started
        self._ended.put(Outcome(snapshot.step, partial.with_suffix(""), seconds, problem, tuple(notes)))

    def _together(self, action: Callable[[], T]) -> list[T]:
        """Every rank's result of its action; InputError on all ranks when one of them had a problem (the first's)."""
        result, problem = None, None
        try:
            result = action()
        except Exception as error:  # whatever it is, the other ranks wait for this one's word
            problem = files.explain_save(error, self.root)
        self._on_progress()
        replies: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(replies, (result, problem), group=self._group)
        found = next((said for _, said in replies if said), None)
        if found:
            raise InputError(found)
        return [answer for answer, _ in replies]

    def _write(self, partial: Path, snapshot: Snapshot) -> dict[str, Record]:
        """Writes this rank's files; returns their entries in the manifest."""
        own = {f"model-{self.rank:05d}": snapshot.weights, f"optimizer-{self.rank:05d}": snapshot.optimizer}
        if self.lead:
            own["rng"] = snapshot.random_state
        paths = [partial / f"{name}.safetensors" for name in own]
        for path, tensors in zip(paths, own.values(), strict=True):
            save_tensors(tensors, path)
            self._on_progress()
        if self.lead:
            paths += self._write_small(partial, snapshot)
        records = {}
        for path in paths:
            sync(path)
            records[path.relative_to(partial).as_posix()] = describe(path)
            self._on_progress()
        return records

    def _write_small(self, partial: Path, snapshot: Snapshot) -> list[Path]:
        """Recipe, tokenizer and counts; returns the files."""
        state, recipe = partial / files.STATE, partial / RECIPE
        counts = {"format": files.FORMAT, "step": snapshot.step, "optimizer_step": snapshot.optimizer_step}
        state.write_text(json.dumps({**counts, "token_files": self._token_files}), encoding="utf-8")
        save_recipe(self.recipe, recipe)
        if self.tokenizer is None:
            return [state, recipe]
        copy = shutil.copytree(self.tokenizer, partial / TOKENIZER)
        return [state, recipe, *(path for path in copy.rglob("*") if path.is_file())]

    def _complete(self, partial: Path, step: int, records: dict[str, Record]) -> list[str]:
        """Makes a checkpoint of the files that all ranks have written; says which old ones could not be removed."""
        write_manifest(partial, records)
        files.commit(partial)
        keep = self.recipe.checkpoint
        return files.remove_old(self.root, step, keep.keep_last, keep.keep_every)
