"""How a training script is started on this machine: DeepSpeed's command line, its environment, a free port.

    python -m megatron_iberis.launcher examples/demo.sh --train.steps 100

becomes `deepspeed examples/demo.sh --train.steps 100`, which is what examples/*.sh do under bash.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

SCRIPTS = Path(sys.executable).parent
"""Where the commands of this Python's environment are."""


def deepspeed_command(script: str | Path, words: Sequence[str], processes: int | None = None) -> list[str]:
    """The words that start `script` with `words` in so many processes (None: one a GPU; a single one on a CPU).

    The ranks meet at a port that is free now: DeepSpeed's own (29500) may be another run's.
    """
    number = [] if processes is None else ["--num_gpus", str(processes)]
    options = ["--log_level", "critical", "--master_port", str(free_port()), *number]
    return [shutil.which("deepspeed", path=_path()) or "deepspeed", *options, str(script), *words]


def environment() -> dict[str, str]:
    """This process's environment as the command wants it."""
    variables = {**os.environ, "PATH": _path()}
    if not shutil.which("nvidia-smi"):
        variables.setdefault("DS_ACCELERATOR", "cpu")  # else the launcher warns that it found no GPU
    return variables


def free_port() -> int:
    """A TCP port that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        port: int = probe.getsockname()[1]
        return port


def main() -> None:
    """Becomes the deepspeed command."""
    script, *words = sys.argv[1:]
    command = deepspeed_command(script, words)
    # Ctrl-C is for the ranks, which save: DeepSpeed's outer process, which it reaches too, is to wait for them.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.execvpe(command[0], command, environment())


def _path() -> str:
    return f"{SCRIPTS}{os.pathsep}{os.environ.get('PATH', '')}"


if __name__ == "__main__":
    main()
