"""Two network namespaces with a cable between them: two nodes on one machine. Needs root and iproute2.

Both ends of the cable lie inside the namespaces, which have no other way out: no packet reaches a real network.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

ADDRESSES = ("10.213.0.1", "10.213.0.2")
CABLE = "eth0"


class UnavailableError(Exception):
    """Why there can be no network namespaces here."""


class TwoNodes:
    """`start` runs a command on node 0 or 1, `cut` and `restore` are for the cable, `close` leaves nothing behind."""

    def __init__(self) -> None:
        if os.geteuid() != 0:
            raise UnavailableError("network namespaces need root")
        if shutil.which("ip") is None:
            raise UnavailableError("there is no ip command (Debian: apt install iproute2)")
        self.names = [f"iberis-{os.getpid()}-{node}" for node in (0, 1)]
        self.processes: list[subprocess.Popen[bytes]] = []
        one, other = self.names
        try:
            for name in self.names:
                _ip("netns", "add", name)
            _ip("link", "add", CABLE, "netns", one, "type", "veth", "peer", "name", CABLE, "netns", other)
            for name, address in zip(self.names, ADDRESSES, strict=True):
                _ip("-n", name, "address", "add", f"{address}/24", "dev", CABLE)
                for device in ("lo", CABLE):
                    _ip("-n", name, "link", "set", device, "up")
        except subprocess.CalledProcessError as error:
            self.close()
            raise UnavailableError(f"{' '.join(error.cmd)}: {error.stderr.decode().strip()}") from None

    def start(self, node: int, command: list[str], output: Path, cwd: Path, environment: dict[str, str]) -> None:
        """Starts a command on a node; what it says goes to the file `output`."""
        with output.open("wb") as file:
            process = subprocess.Popen(
                ["ip", "netns", "exec", self.names[node], *command],
                cwd=cwd,
                env=environment,
                stdout=file,
                stderr=subprocess.STDOUT,
            )
        self.processes.append(process)

    def exit_codes(self, within: float) -> list[int]:
        """The exit codes of what was started since the last call; TimeoutExpired when it has not ended in time."""
        deadline = time.monotonic() + within
        codes = [process.wait(max(0, deadline - time.monotonic())) for process in self.processes]
        self.processes.clear()
        return codes

    def alive(self) -> list[int]:
        """The processes in both namespaces, which are those that were started here and their children."""
        listed = [subprocess.run(["ip", "netns", "pids", name], capture_output=True).stdout for name in self.names]
        return [int(pid) for pid in b"".join(listed).split()]

    def cut(self) -> None:
        """Nothing passes any more, and nobody is told: connections stay open, as when a switch loses its power."""
        _ip("-n", self.names[0], "link", "set", CABLE, "down")

    def restore(self) -> None:
        _ip("-n", self.names[0], "link", "set", CABLE, "up")

    def close(self) -> None:
        """Ends what was started, and removes the namespaces and the cable with them."""
        for pid in self.alive():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for process in self.processes:
            process.wait()
        for name in self.names:
            subprocess.run(["ip", "netns", "delete", name], capture_output=True)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)
