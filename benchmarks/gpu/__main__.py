"""Checks training on this machine's GPUs: whether it is right, and how fast. At most 8 minutes, no network needed.

    python -m benchmarks.gpu [--output gpu.json] [--sections golden zero resume d20 d12]          (make check-gpu)

* golden: golden logits, loss, gradients and training steps, in fp32 with TF32 off.
* zero, resume: small runs by the `deepspeed` launcher on all GPUs: ZeRO 0 to 3; a resume that is bit-equal.
* d20, d12: on one GPU, tokens/s, MFU, memory, time by part and the dearest kernels; the reference model beside it.

A section that fails is reported with its error, and the others still run. Exit code 0: every check passed; 1: one
did not; 2: there is no GPU. --device cpu tries the command itself, at a tiny size. More: docs/gpu.md.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.gpu import report, sections

SECONDS = 470.0
"""All sections together; the rest of 8 minutes is for starting and reporting."""


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", default="gpu.json", help="file for all findings (default: gpu.json)")
    parser.add_argument("--sections", nargs="+", choices=list(sections.SECTIONS), default=list(sections.SECTIONS))
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    deadline = time.monotonic() + SECONDS * (sections.CPU_PATIENCE if arguments.device == "cpu" else 1)
    machine = sections.run(sections.MACHINE, arguments.device, sections.MACHINE.seconds)
    gpus = machine["figures"].get("gpus", [])
    if machine["error"]:
        print("\n".join([*machine["said"], f"error: {machine['error']}"]), file=sys.stderr)
        return 1
    if arguments.device == "cuda" and not gpus:
        print("error: torch finds no GPU here: run this where nvidia-smi lists one.", file=sys.stderr)
        return 2
    names = ", ".join(f"{gpu['name']} ({gpu['gigabytes']:.0f} GB)" for gpu in gpus) or "CPU, at a tiny size"
    print(f"{names}; torch {machine['figures']['torch']}", flush=True)
    findings: dict[str, Any] = {
        "time": time.strftime("%Y-%m-%d %H:%M:%S"),
        "device": arguments.device,
        "machine": machine["figures"],
        "sections": {},
        "passed": False,
    }
    for name, section in sections.run_all(arguments.sections, arguments.device, deadline):
        findings["sections"][name] = section
        findings["passed"] = all(each["passed"] for each in findings["sections"].values())
        Path(arguments.output).write_text(json.dumps(findings, indent=1), encoding="utf-8")
        print(
            f"{name:<8}{report.verdict(section):<8}{section['seconds']:6.0f} s  {section['error']}"[:80], flush=True
        )
    report.show(findings)
    print(f"\nEverything, with errors in full: {arguments.output}")
    return 0 if findings["passed"] else 1


if __name__ == "__main__":
    sys.exit(main())
