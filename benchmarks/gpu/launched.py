"""Sections zero and resume: small runs, started as a user starts them, by the `deepspeed` launcher on all GPUs."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from benchmarks.gpu.record import Record, largest
from benchmarks.gpu.scale import Scale
from megatron_iberis.text.config import PreprocessConfig
from megatron_iberis.text.preprocess import preprocess
from megatron_iberis.text.reading.inputs import find_inputs
from megatron_iberis.text.reading.records import Tally, read_documents
from megatron_iberis.tokenizer import train

ROOT = Path(__file__).parents[2]
APART = 0.02
"""How far a step's loss may be from the first stage's, relative: 0 trains in fp32, the others in bf16."""
Settings = dict[str, Any]


def zero(scale: Scale, record: Record) -> None:
    """Every ZeRO stage trains: the loss falls, and is the first stage's but for bf16's rounding."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        record.begin("token files")
        data = token_files(folder)
        losses: dict[int, list[float]] = {}
        for stage in scale.stages:
            record.begin(f"ZeRO {stage}")
            settings = {"parallel.zero_stage": stage, "train.dtype": "bf16" if stage else "fp32"}
            losses[stage] = launch(scale, folder / f"zero{stage}", {**data, **settings, "checkpoint.every": 0})
            compare(record, stage, losses[stage], losses[scale.stages[0]])


def compare(record: Record, stage: int, losses: list[float], first: list[float]) -> None:
    """Checks a stage's losses against those of the first stage."""
    record.figures(**{f"losses_zero{stage}": losses})
    record.check(f"ZeRO {stage}: the loss's change in {len(losses)} steps", losses[-1] - losses[0], 0.0)
    if losses is not first:
        worst = largest(abs(a - b) / b for a, b in zip(losses, first, strict=True))
        record.check(f"ZeRO {stage}: its losses from the first stage's, relative", worst, APART)


def resume(scale: Scale, record: Record) -> None:
    """A run resumed from a checkpoint ends as one that was never stopped: every tensor, bit for bit."""
    half = scale.steps // 2
    with tempfile.TemporaryDirectory() as temporary:
        whole, stopped = Path(temporary) / "whole", Path(temporary) / "stopped"
        record.begin("token files")
        settings = {**token_files(Path(temporary)), "parallel.zero_stage": 1, "train.dtype": "bf16"}
        settings["checkpoint.every"] = half
        record.begin("the whole run")
        losses = launch(scale, whole, settings)
        shutil.copytree(whole, stopped)
        shutil.rmtree(stopped / "checkpoints" / f"step-{scale.steps:08d}")
        (stopped / "checkpoints" / "latest").write_text(f"step-{half:08d}\n")
        record.begin("the resumed run")
        again = launch(scale, stopped, {**settings, "run.resume": "true"})
        different = sum(a != b for a, b in zip(losses, again, strict=True))
        record.check(f"steps 1 to {scale.steps}: losses that differ after the resume", different, 0)
        wanted, found = (tensors(folder / "checkpoints" / f"step-{scale.steps:08d}") for folder in (whole, stopped))
        different = sum(name not in found or not torch.equal(wanted[name], found[name]) for name in wanted)
        record.check(f"of {len(wanted)} saved tensors: those that differ in a bit", different, 0)


def tensors(checkpoint: Path) -> dict[str, torch.Tensor]:
    """All tensors of a checkpoint: weights, optimizer state, random state."""
    return {name: t for path in sorted(checkpoint.glob("*.safetensors")) for name, t in load_file(path).items()}


def token_files(folder: Path) -> Settings:
    """A small tokenizer and token files of the sample text; the settings that train on them."""
    inputs = sorted(str(path) for path in (ROOT / "examples" / "sample").glob("*.jsonl"))
    documents = (document.text for document in read_documents(find_inputs(inputs), "text", Tally()))
    train(documents, 600, folder / "tokenizer")
    preprocess(PreprocessConfig(inputs, str(folder / "tokenizer"), str(folder / "corpus")), lambda *_: None)
    prefix = folder / "corpus_text_document"
    return {"data.train": prefix, "data.val": "", "data.tokenizer": folder / "tokenizer"}


def launch(scale: Scale, run: Path, settings: Settings) -> list[float]:
    """A run of the demo's model with rows of 128 tokens, on all GPUs; the loss of each step.

    Raises RuntimeError with the end of what it said when it fails.
    """
    on_gpus = scale.device == "cuda"
    processes = torch.cuda.device_count() if on_gpus else 1
    chosen = {
        "model.sequence_length": 128,
        "train.steps": scale.steps,
        "train.device_batch": 4,
        "train.batch_tokens": 128 * 4 * processes,
        "evaluation.sample_every": 0,
        **settings,
        "run.folder": run,
    }
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    # a hostfile that lies on a cluster's machines would take the run to other nodes
    launcher = ["-m", "deepspeed.launcher.runner", "--log_level", "error", "--hostfile", "none"]
    launcher += ["--master_port", str(port), "--num_gpus", str(processes), "examples/demo.sh"]
    words = [*scale.model, *(f"--{name}={value}" for name, value in chosen.items())]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    environment["DS_ACCELERATOR"] = scale.device
    command = [sys.executable, *launcher, *words]
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    if ended.returncode:
        said = [line for line in (ended.stdout + ended.stderr).splitlines() if line.strip()]
        print("\n".join(said[-40:]), file=sys.stderr)
        raise RuntimeError(f"the launched run ended with code {ended.returncode}: {said[-1] if said else ''}")
    lines = (run / "log.jsonl").read_text(encoding="utf-8").splitlines()
    return [float(event["loss"]) for event in map(json.loads, lines) if event["event"] == "step"]
