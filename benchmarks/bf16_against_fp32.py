"""How far bf16 training is from fp32: the demo's first steps, on two ranks, at ZeRO stages 1, 2 and 3.

    make demo; python benchmarks/bf16_against_fp32.py [--steps 100] [--stages 1 2 3] [--folder F]

Every run is started by the `deepspeed` command, on the demo's token files. Prints, for each stage, the largest
relative difference of any step's loss from the fp32 run's, the mean one, and the held-out bits per byte; exit code 1
when a loss is further than 2 % away.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from megatron_iberis.launcher import deepspeed_command, environment

ROOT = Path(__file__).parents[1]
LIMIT = 0.02


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=100, help="steps of every run (default: 100)")
    parser.add_argument("--stages", type=int, nargs="+", default=[1, 2, 3], help="ZeRO stages (default: 1 2 3)")
    parser.add_argument("--folder", help="where the runs are kept; a temporary folder by default")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(arguments.folder or temporary).absolute()
        exact, exact_bits = trained(folder / "fp32", arguments.steps, 1, "fp32")
        print(f"{'':<10}{'largest':>10}{'mean':>10}{'bits per byte':>16}")
        print(f"{'fp32':<10}{'':>10}{'':>10}{exact_bits:>16.4f}", flush=True)
        worst = 0.0
        for stage in arguments.stages:
            losses, bits = trained(folder / f"bf16-zero{stage}", arguments.steps, stage, "bf16")
            apart = [abs(a - b) / b for a, b in zip(losses, exact, strict=True)]
            worst = max(worst, *apart)
            mean = sum(apart) / len(apart)
            print(f"ZeRO {stage:<5}{max(apart):>10.3%}{mean:>10.3%}{bits:>16.4f}", flush=True)
    return int(worst > LIMIT)


def trained(folder: Path, steps: int, stage: int, dtype: str) -> tuple[list[float], float]:
    """The losses of a run, step by step, and its last held-out bits per byte."""
    settings = {
        "train.steps": steps,
        "train.dtype": dtype,
        "train.device_batch": 8,
        "evaluation.every": 0,
        "evaluation.sample_every": 0,
        "parallel.zero_stage": stage,
        "checkpoint.every": 0,
        "run.folder": folder,
    }
    words = [f"--{name}={value}" for name, value in settings.items()]
    command = deepspeed_command("examples/demo.sh", words, 2)
    subprocess.run(command, cwd=ROOT, env=environment(), stdout=subprocess.DEVNULL, check=True)
    lines = (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()
    events: list[dict[str, Any]] = [json.loads(line) for line in lines]
    losses = [event["loss"] for event in events if event["event"] == "step"]
    return losses, [event["bits_per_byte"] for event in events if event["event"] == "validation"][-1]


if __name__ == "__main__":
    raise SystemExit(main())
