"""Gathers what a machine with torch, but without a network, lacks for training: a folder of wheels, at most 50 MiB.

    python -m benchmarks.wheels [--folder wheels]          (make wheels)

* The project's own wheel, its C++ module inside, and the wheels of what training needs, at the versions that are
  installed here. They are for machines of this kind: the same system, processor and minor version of Python.
* Left out: torch, numpy, triton and setuptools with their own needs, which are there already; what only reads text
  from datasets, parquet files and the hub; what only TensorBoard's web server needs.
* At the end a Python that sees nothing but these wheels and torch's own needs takes one training step.

How to train with them: docs/gpu.md.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from megatron_iberis.errors import InputError

ROOT = Path(__file__).parents[1]
PROJECT = "megatron_iberis"
LIMIT = 50 * 2**20
"""Bytes: what can be sent to most closed machines at once."""
PRESENT = ("torch", "numpy", "triton", "setuptools")
TEXT = ("datasets", "huggingface-hub", "pyarrow")
WEB_SERVER = ("grpcio", "markdown", "pillow", "tensorboard-data-server", "werkzeug")
SOURCES = ("setup.py", "pyproject.toml", "README.md", "LICENSE", "csrc", PROJECT)
STEP = """
import deepspeed.launcher.runner, megatron_iberis.cli, megatron_iberis.stages.launch, megatron_iberis.stages.pretrain
import torch, tyro
from megatron_iberis.config import load_recipe
from megatron_iberis.data.batches import Batch
from megatron_iberis.parallel.groups import ParallelGroups
from megatron_iberis.parallel.start import start_process_group
from megatron_iberis.training.engine import Engine
sizes = {"model.depth": 2, "model.width": 32, "model.heads": 4, "model.vocab_size": 64, "model.sequence_length": 16}
sizes |= {"train.batch_tokens": 32, "train.device_batch": 2}
recipe = load_recipe("demo", [f"--{name}={size}" for name, size in sizes.items()])
device = start_process_group(5)
tokens = torch.arange(32).view(2, 16)
Engine(recipe, ParallelGroups.create(), device).step(0, [Batch(tokens, tokens)])
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", default="wheels", help="where the wheels go (default: wheels)")
    arguments = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory() as temporary:
            gathered = Path(temporary) / "wheels"
            build(gathered, requirements(), Path(temporary) / "source")
            check_size(gathered)
            take_a_step(gathered, Path(temporary))
            replace(gathered, Path(arguments.folder))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    wheels = sorted(Path(arguments.folder).glob("*.whl"), key=lambda wheel: -wheel.stat().st_size)
    for wheel in wheels:
        print(f"{wheel.stat().st_size / 2**20:8.2f} MiB  {wheel.name.split('-')[0]} {wheel.name.split('-')[1]}")
    total = sum(wheel.stat().st_size for wheel in wheels)
    print(f"{total / 2**20:8.2f} MiB  in {len(wheels)} wheels in {arguments.folder}, which can take a training step")
    return 0


def requirements() -> dict[str, str]:
    """What training needs beside what is there: the version that is installed here, by name."""
    there = needs(PRESENT, ())
    found = needs([PROJECT], (*there, *TEXT, *WEB_SERVER))
    return {name: installed.version for name, installed in found.items() if name != canonicalize_name(PROJECT)}


def needs(names: Iterable[str], without: Iterable[str]) -> dict[str, Distribution]:
    """These packages and all that they need, as installed here, but none of `without` nor what only those need.

    Packages of PRESENT may be missing (a CPU's torch has no triton). Raises InputError when another one is.
    """
    left_out = {canonicalize_name(name) for name in without}
    found: dict[str, Distribution] = {}
    waiting = [canonicalize_name(name) for name in names]
    while waiting:
        name = waiting.pop()
        if name in found or name in left_out:
            continue
        try:
            found[name] = distribution(name)
        except PackageNotFoundError:
            if name in PRESENT:
                continue
            raise InputError(f"{name} is not installed here: run make wheels, or pip install .") from None
        wanted = [Requirement(line) for line in found[name].requires or []]
        waiting += [canonicalize_name(r.name) for r in wanted if r.marker is None or r.marker.evaluate({"extra": ""})]
    return found


def build(folder: Path, pinned: dict[str, str], source: Path) -> None:
    """Puts the wheels of the pinned packages and the project's own into the folder. source: a folder to build in."""
    environment = {**os.environ, "DS_BUILD_OPS": "0"}  # DeepSpeed comes as a source: none of its kernels are compiled
    source.mkdir()
    for name in SOURCES:  # what lies in build/ from earlier builds would come along otherwise
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
        else:
            shutil.copy(ROOT / name, source / name)
    wanted = [f"{name}=={version}" for name, version in sorted(pinned.items())]
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check", "--no-deps"]
    try:
        subprocess.run([*command, "--wheel-dir", str(folder), *wanted, str(source)], check=True, env=environment)
    except subprocess.CalledProcessError:
        raise InputError(
            "pip could not get all wheels (see above): this needs a network and a C++ compiler."
        ) from None


def check_size(folder: Path) -> None:
    """Raises InputError when the wheels have more than LIMIT bytes together; it names the largest."""
    sizes = {wheel.name: wheel.stat().st_size for wheel in folder.glob("*.whl")}
    total = sum(sizes.values())
    if total > LIMIT:
        largest = sorted(sizes, key=lambda name: -sizes[name])[:3]
        named = ", ".join(f"{name.split('-')[0]} {sizes[name] / 2**20:.1f}" for name in largest)
        raise InputError(
            f"the wheels have {total / 2**20:.1f} MiB and may have {LIMIT / 2**20:.0f} MiB; the largest are {named}: "
            "leave out what training does not import (TEXT and WEB_SERVER in benchmarks/wheels.py)."
        )


def take_a_step(wheels: Path, temporary: Path) -> None:
    """Trains one step, on the CPU, in a Python that sees the wheels and PRESENT's needs, and nothing else."""
    site, present = temporary / "site", temporary / "present"
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    names = [str(wheel) for wheel in wheels.glob("*.whl")]
    subprocess.run([*command, "--no-index", "--no-deps", "--target", str(site), *names], check=True)
    present.mkdir()
    for installed in needs(PRESENT, ()).values():
        tops = {file.parts[0] for file in installed.files or [] if file.parts[0] not in ("..", "__pycache__")}
        for top in tops:
            if not (present / top).exists():
                (present / top).symlink_to(Path(str(installed.locate_file(top))))
    environment = {**os.environ, "PYTHONPATH": f"{site}{os.pathsep}{present}", "CUDA_VISIBLE_DEVICES": ""}
    environment |= {"PYTHONNOUSERSITE": "1", "DS_ACCELERATOR": "cpu"}
    subprocess.run([sys.executable, "-S", "-W", "ignore", "-c", STEP], check=True, env=environment, cwd=temporary)


def replace(gathered: Path, folder: Path) -> None:
    """Moves the wheels into the folder, where those of an earlier time are removed."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.whl"):
        old.unlink()
    for wheel in gathered.glob("*.whl"):
        shutil.move(wheel, folder / wheel.name)


if __name__ == "__main__":
    sys.exit(main())
