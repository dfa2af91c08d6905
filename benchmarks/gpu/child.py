"""Runs one section: python -m benchmarks.gpu.child MODULE:FUNCTION DEVICE RECORD [ARGUMENT ...]"""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

from benchmarks.gpu.record import Record
from benchmarks.gpu.scale import SCALES


def main() -> None:
    function, device, file, *arguments = sys.argv[1:]
    record = Record(Path(file))
    module, _, name = function.partition(":")
    getattr(import_module(f"benchmarks.gpu.{module}"), name)(SCALES[device], record, *arguments)


if __name__ == "__main__":
    main()
