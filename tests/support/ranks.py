"""A few processes, started once a test session, that run the same function as ranks of one process group.

Importing torch, DeepSpeed and megatron-core takes five seconds a process; starting ranks for every test would
be most of the suite's time. So would groups that nobody uses any more: each has threads that keep waking up.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import time
import traceback
from multiprocessing.connection import wait
from typing import TYPE_CHECKING, Any

from megatron_iberis.launcher import free_port

if TYPE_CHECKING:
    from megatron_iberis.parallel.groups import ParallelGroups

_kept: dict[tuple[int, int], ParallelGroups] = {}


def groups_of(tensor_size: int, context_size: int = 1) -> ParallelGroups:
    """Runs on a rank: its groups, made once a process, as making them takes longer than a small model does."""
    from megatron_iberis.parallel.groups import ParallelGroups

    key = (tensor_size, context_size)
    if key not in _kept:
        _kept[key] = ParallelGroups.create(*key)
    return _kept[key]


class Ranks:
    """`size` processes with a gloo process group. `ranks(function, *args)` runs function(*args) on all of them.

    The function must be importable (module level); returns the list of its results, one a rank.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._start()

    def __call__(self, function: Any, *args: Any, timeout: float = 240) -> list[Any]:
        for pipe in self.pipes:
            pipe.send((function, args))
        replies: dict[int, Any] = {}
        problem = ""
        deadline = time.monotonic() + timeout
        while len(replies) < self.size and time.monotonic() < deadline:
            waiting = {pipe: rank for rank, pipe in enumerate(self.pipes) if rank not in replies}
            for pipe in wait(list(waiting), deadline - time.monotonic()):
                ok, reply = _receive(pipe)
                replies[waiting[pipe]] = reply
                if not ok:
                    problem = problem or f"rank {waiting[pipe]}:\n{reply}"
                    deadline = min(deadline, time.monotonic() + 5)  # the others may wait for this one for ever
        if len(replies) < self.size:
            self.close()
            self._start()
            problem = problem or f"of {self.size} ranks only {sorted(replies)} answered in {timeout} s"
        assert not problem, problem
        return [replies[rank] for rank in range(self.size)]

    def _start(self) -> None:
        port = free_port()
        context = multiprocessing.get_context("spawn")
        self.pipes, self.processes = [], []
        for rank in range(self.size):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(rank, self.size, port, theirs), daemon=True)
            process.start()
            theirs.close()  # so that a dead rank is seen as the end of its pipe
            self.pipes.append(ours)
            self.processes.append(process)

    def close(self) -> None:
        for pipe in self.pipes:
            pipe.close()
        for process in self.processes:
            process.join(timeout=2)
            if process.is_alive():
                process.kill()


def _receive(pipe: Any) -> tuple[bool, Any]:
    try:
        return pipe.recv()
    except EOFError:
        return False, "the process ended"


def _serve(rank: int, size: int, port: int, pipe: Any) -> None:
    os.environ.update(
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        WORLD_SIZE=str(size),
        LOCAL_SIZE=str(size),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
    )
    import torch

    from megatron_iberis.parallel.start import start_process_group

    torch.set_num_threads(1)
    start_process_group(timeout_minutes=4)
    gc.collect()
    gc.freeze()  # DeepSpeed collects garbage at every start, which takes long among all that was imported
    while True:
        try:
            function, args = pipe.recv()
        except EOFError:
            return
        try:
            pipe.send((True, function(*args)))
        except Exception:
            pipe.send((False, traceback.format_exc()))
        _destroy_groups()


def _destroy_groups() -> None:
    """Ends all process groups but the default one and those of `groups_of`."""
    import torch.distributed as dist

    kept = {id(group) for groups in _kept.values() for group in vars(groups).values()} | {id(dist.group.WORLD)}
    made = [group for group in dist.distributed_c10d._world.pg_map if id(group) not in kept]
    if made:
        gc.collect()  # engines are full of cycles
    for group in made:
        dist.destroy_process_group(group)
