"""Ends a run that hangs, and says which rank it is that hangs or died.

* Each rank has two threads. One posts the rank's heartbeat to the run's TCPStore, over a connection of its own, every
  second or two; when its own main thread stands still it reads the others', too. That may block, when the process
  that keeps the store is stopped. The other thread never waits for anybody: it judges, and ends the process.
* A run stalls when nobody's main thread has got on for a time. Who holds it up is the rank that gives no sign of life
  at all, failing that the one whose main thread is behind: the others wait for it.
* A rank of this machine that is gone is seen by its process number, within seconds.
* log/rank-00000.txt: what the rank is doing, always, and the stacks of its threads when the run was ended.
"""

from __future__ import annotations

import datetime
import faulthandler
import os
import secrets
import signal
import socket
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch.distributed as dist

from megatron_iberis.errors import sentence
from megatron_iberis.resilience.failure import mark_said, say
from megatron_iberis.resilience.heartbeat import Heartbeat

SHARE = 0.8
"""Of parallel.timeout_minutes: the run is ended before collectives time out, which name nobody."""
GRACE = 2.0
"""Seconds in which a rank may end by itself, with its own message, before it is ended because another has."""
START = 120.0
"""Seconds that are given at least before the first step: nothing beats while files are read and engines built."""
STATE_BYTES = 200
DUMP_SIGNAL = signal.SIGUSR2
REFUSED = "refused"
"""The key in the store under which the ranks are counted that have found the input wrong."""


@dataclass(frozen=True)
class Beat:
    """A rank's heartbeat as it was posted. pulse: counts the posts, so that a silent rank can be told."""

    beats: int
    pulse: int
    idle: float
    step: int
    phase: str

    def __str__(self) -> str:
        return f"{self.beats} {self.pulse} {self.idle:.1f} {self.step} {self.phase}"

    @classmethod
    def read(cls, text: str) -> Beat:
        beats, pulse, idle, step, phase = text.split(" ", 4)
        return cls(int(beats), int(pulse), float(idle), int(step), phase)


@dataclass(frozen=True)
class Finding:
    """Why the run has to end, in a sentence, and the ranks whose fault it is."""

    sentence: str
    ranks: tuple[int, ...]


class Watchdog:
    """Watches over its `with` block. Made, entered and left by all ranks together.

    folder: of the ranks' files; heartbeat: of this rank's main thread.
    """

    def __init__(self, folder: Path, timeout_minutes: float, heartbeat: Heartbeat) -> None:
        self.heartbeat = heartbeat
        self.rank, self.world = dist.get_rank(), dist.get_world_size()
        self.limit = SHARE * 60 * timeout_minutes
        self.interval = min(2.0, self.limit / 20)
        self.folder = folder
        places: list[Any] = [None] * self.world
        dist.all_gather_object(places, (_machine(), os.getpid(), secrets.token_hex(8)))
        self.local = {r: _process(pid) for r, (machine, pid, _) in enumerate(places) if machine == _machine()}
        self._store = _connect(places[0][2]) if self.world > 1 else None  # rank 0's word sets its keys apart
        self._answered = time.monotonic()
        self._others: dict[int, tuple[Beat, float]] = {}  # and since when it has not changed
        self._stopped = threading.Event()
        self._ending = threading.Lock()

    def __enter__(self) -> Watchdog:
        self.heartbeat.beat("starting", 0)
        self._file = self._open_file()
        loops = [self._watch] + ([self._post] if self._store else [])
        for loop in loops:
            threading.Thread(target=loop, name="watchdog", daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: Any) -> None:
        if kind is None:
            self.heartbeat.beat("waiting for all ranks to finish")
            dist.barrier()  # who ends after this is not missed
        elif issubclass(kind, RuntimeError):
            self._blame()
        elif (said := sentence(error)) is not None:
            self._refuse(said)
        with self._ending:
            self._stopped.set()
        if self._file is not None:
            faulthandler.unregister(DUMP_SIGNAL)
            self._file.close()

    def _blame(self) -> None:
        """A collective that fails may do so because a rank has died: then that is what there is to say."""
        deadline = time.monotonic() + GRACE
        while time.monotonic() < deadline:
            found = self._dead()
            if found:
                self._end(found)
            time.sleep(0.1)

    def _refuse(self, said: str) -> None:
        """This rank has found the input wrong: the first says so, and those that wait for it end without a word."""
        self._stopped.set()
        store, found = self._store, 1
        with suppress(Exception):
            found = store.add(REFUSED, 1) if store else 1
        mark_said(said) if found > 1 else say(said)
        started = time.monotonic()
        with suppress(Exception):
            while store and time.monotonic() - started < self.interval + GRACE + 1:
                # Rank 0 keeps the store. It is asked only as long as it is there: a rank that waits ends after GRACE.
                if time.monotonic() - started < GRACE / 2 and store.add(REFUSED, 0) == self.world:
                    break
                time.sleep(0.1)

    def _watch(self) -> None:
        while not self._stopped.wait(self.interval):
            self._write_state()
            found = self._dead()
            if found and self._stopped.wait(GRACE):
                return
            found = found or self._stalled()
            if found:
                self._end(found)

    def _post(self) -> None:
        pulse = 0
        assert self._store
        while not self._stopped.wait(self.interval):
            pulse += 1
            with suppress(Exception):  # whoever keeps the store is gone: that is for the other thread to see
                own = Beat(
                    self.heartbeat.beats, pulse, self.heartbeat.idle(), self.heartbeat.step, self.heartbeat.phase
                )
                self._store.set(f"{self.rank}", str(own))
                if self._store.check([REFUSED]) and not self._stopped.wait(GRACE):  # it may find the same
                    os._exit(2)
                if own.idle > self.limit / 2:
                    self._read_others()
                elif not self._store.check([f"{self.rank}"]):
                    continue
                self._answered = time.monotonic()

    def _read_others(self) -> None:
        assert self._store
        others = [r for r in range(self.world) if r != self.rank and self._store.check([f"{r}"])]
        for r, text in zip(others, self._store.multi_get([f"{r}" for r in others]), strict=True):
            beat = Beat.read(text.decode())
            if r not in self._others or self._others[r][0].pulse != beat.pulse:
                self._others[r] = beat, time.monotonic()

    def _dead(self) -> Finding | None:
        gone = tuple(r for r, process in self.local.items() if _is_gone(process))
        if not gone:
            return None
        return Finding(f"{_ranks(gone)} ended while the others went on: killed, or out of memory", gone)

    def _stalled(self) -> Finding | None:
        if self.heartbeat.idle() < (self.limit if self.heartbeat.step else max(self.limit, START)):
            return None
        now, silence = time.monotonic(), max(3 * self.interval, 1.0)
        others = dict(self._others)
        silent = {r for r, (_, since) in others.items() if now - since > silence}
        if self._store and now - self._answered > silence:
            silent, others = {0}, {}  # rank 0 keeps the store, and nothing is known of the others
        if any(beat.idle < self.limit / 2 for r, (beat, _) in others.items() if r not in silent):
            return None  # somebody gets on
        beats = {self.rank: self.heartbeat.beats, **{r: beat.beats for r, (beat, _) in others.items()}}
        behind = {r for r, count in beats.items() if count == min(beats.values())}
        if silent:
            guilty, what = tuple(sorted(silent)), "gave no sign of life"
        elif len(behind) < self.world:
            guilty, what = tuple(sorted(behind)), "did not get on"
        else:
            guilty, what = tuple(range(self.world)), "did not get on, all at the same place"
        known = [f"rank {r} in step {others[r][0].step}, {others[r][0].phase}" for r in guilty if r in others]
        where = f" (last seen: {'; '.join(known)})" if known else ""
        waiting = f"rank {self.rank} waited in step {self.heartbeat.step}, {self.heartbeat.phase}"
        return Finding(f"{_ranks(guilty)} {what} for {self.heartbeat.idle():.0f} s{where}; {waiting}", guilty)

    def _end(self, found: Finding) -> None:
        """Writes this rank's stacks, has those of stalled processes written and ends them, says it, and ends."""
        with self._ending:
            if self._stopped.is_set():
                return
            self._write_state()
            if self._file is not None:
                os.write(self._file.fileno(), f"\n{found.sentence}\n\n".encode())
                faulthandler.dump_traceback(self._file, all_threads=True)
            living = [r for r, process in self.local.items() if not _is_gone(process)]
            speakers = [r for r in living if r not in found.ranks] or living
            if self.rank == min(speakers):
                print(
                    f"error: the run was ended: {found.sentence}. What each rank did stands in {self.folder}; "
                    "--run.resume continues from the last checkpoint.",
                    file=sys.stderr,
                    flush=True,
                )
                for r in set(found.ranks) & set(living) - {self.rank}:
                    self._end_other(r)
            else:
                time.sleep(2 * self.interval)  # whoever ends first makes the launcher end the others
            os._exit(1)

    def _end_other(self, rank: int) -> None:
        """Ends a process of this machine that may be stopped: first it is to write where it was."""
        process, path = self.local[rank], self._path(rank)
        with suppress(psutil.Error, OSError):
            before = path.stat().st_size
            process.send_signal(DUMP_SIGNAL)
            process.send_signal(signal.SIGCONT)
            for _ in range(20):
                time.sleep(0.05)
                if path.stat().st_size > before:
                    time.sleep(0.2)
                    break
        with suppress(psutil.Error):
            process.kill()

    def _path(self, rank: int) -> Path:
        return self.folder / f"rank-{rank:05d}.txt"

    def _open_file(self) -> Any:
        """The rank's file; what an ended run left there is kept under another name. None when there can't be one."""
        path = self._path(self.rank)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if path.exists() and path.stat().st_size > STATE_BYTES:
                path.replace(path.with_suffix(".previous.txt"))
            file = path.open("wb", buffering=0)
            file.write(b" " * (STATE_BYTES - 1) + b"\n")
        except OSError:
            return None
        faulthandler.register(DUMP_SIGNAL, file=file, all_threads=True)
        return file

    def _write_state(self) -> None:
        with suppress(OSError, AttributeError):
            since = datetime.datetime.now() - datetime.timedelta(seconds=self.heartbeat.idle())
            text = f"rank {self.rank} on {socket.gethostname()}, process {os.getpid()}: step {self.heartbeat.step}, "
            text += f"{self.heartbeat.phase}, since {since:%H:%M:%S}"
            os.pwrite(self._file.fileno(), text.encode()[: STATE_BYTES - 1].ljust(STATE_BYTES - 1), 0)


def _connect(name: str) -> Any:
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    store = dist.TCPStore(address, port, is_master=False, wait_for_workers=False)
    return dist.PrefixStore(f"watchdog/{name}", store)


def _machine() -> str:
    """What two processes share that know each other's numbers. Containers with a network of their own are apart."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text()
        return boot + os.readlink("/proc/self/ns/pid") + os.readlink("/proc/self/ns/net")
    except OSError:  # not Linux
        return socket.gethostname()


def _process(pid: int) -> Any:
    try:
        return psutil.Process(pid)
    except psutil.NoSuchProcess:
        return None


def _is_gone(process: Any) -> bool:
    try:
        return process is None or not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def _ranks(ranks: tuple[int, ...]) -> str:
    return f"rank {ranks[0]}" if len(ranks) == 1 else f"ranks {', '.join(map(str, ranks))}"
