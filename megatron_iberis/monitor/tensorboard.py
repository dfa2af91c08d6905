"""TensorBoard's view of a run: curves, sample texts, the recipe, and the HPARAMS tab.

* Steps count the steps done: the first loss stands at 1.
* Events are written at once and by the caller, not by a thread as torch's SummaryWriter does: a crash loses none,
  and a full disk is an OSError here and not a traceback of another thread.
"""

from __future__ import annotations

import os
import socket
import time
import unicodedata
from dataclasses import asdict
from pathlib import Path
from typing import Any

import tomli_w
from tensorboard.compat.proto import event_pb2 as protobuf
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.summary.writer.record_writer import RecordWriter
from torch.utils.tensorboard.summary import hparams

from megatron_iberis.config import Recipe
from megatron_iberis.monitor.events import Event, Figures, Samples, Step, Validation

FILE_VERSION = "brain.Event:2"


class TensorBoardWriter:
    """Writes one event file into `folder` for a run that resumes after `first_step` steps.

    TensorBoard hides what older files in the folder say about later steps, so a resumed run shows one curve.
    Raises OSError when the disk does not take it.
    """

    def __init__(self, folder: Path, recipe: Recipe, first_step: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        # TensorBoard reads the files of a folder by the order of their names.
        name = f"events.out.tfevents.{time.time_ns() // 1000}.{socket.gethostname()}.{os.getpid()}"
        self._file = (folder / name).open("wb")
        self._records = RecordWriter(self._file)
        self._steps = recipe.train.steps
        self._done = first_step
        purge = first_step + 1 if first_step else 0
        self._write(protobuf.Event(file_version=FILE_VERSION), purge)
        self._write(protobuf.Event(session_log=protobuf.SessionLog(status=protobuf.SessionLog.START)), purge)
        start, session, self._session_end = hparams(
            hyper_parameters(recipe), {"validation/bits_per_byte": 0.0, "validation/loss": 0.0}
        )
        for summary in (start, session, _text("recipe", f"```toml\n{tomli_w.dumps(asdict(recipe))}```")):
            self._write(protobuf.Event(summary=summary), first_step)

    def tell(self, event: Event) -> None:
        """Notes are for the console and the log."""
        match event:
            case Step():
                self._scalars(event.step, step_scalars(event))
            case Validation():
                values = {"validation/bits_per_byte": event.bits_per_byte, "validation/loss": event.loss}
                self._scalars(event.step, values)
            case Samples():
                texts = [f"**{as_markdown(s.prompt)}**{as_markdown(s.continuation)}" for s in event.samples]
                self._write(protobuf.Event(summary=_text("samples", "\n\n".join(texts))), event.step)
            case Figures():
                self._scalars(event.step, {f"{event.group}/{name}": value for name, value in event.values.items()})

    def close(self) -> None:
        if self._done >= self._steps:
            self._write(protobuf.Event(summary=self._session_end), self._done)
        self._file.close()

    def _scalars(self, step: int, values: dict[str, float]) -> None:
        self._done = step
        summary = Summary(value=[Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()])
        self._write(protobuf.Event(summary=summary), step)

    def _write(self, event: protobuf.Event, step: int) -> None:
        event.step, event.wall_time = step, time.time()
        self._records.write(event.SerializeToString())
        self._records.flush()


def step_scalars(event: Step) -> dict[str, float]:
    """The curves' points of a step, by tag."""
    values = {
        "train/loss": event.loss,
        "train/loss_smooth": event.loss_smooth,
        "train/gradient_norm": event.gradient_norm,
        "train/momentum": event.momentum,
        "train/skipped_steps": event.skipped_steps,
        "memory/gigabytes": event.memory_bytes / 1e9,
    }
    if event.loss_spike is not None:
        values["train/loss_spike"] = event.loss_spike  # a point stands only where there was one
    values |= {f"learning_rate/{kind}": rate for kind, rate in event.learning_rates.items()}
    if event.warm:  # the first step's speed would only squeeze the curve's scale
        values |= {"speed/tokens_per_second": event.tokens_per_second, "speed/mfu": event.mfu}
    return values


def hyper_parameters(recipe: Recipe) -> dict[str, Any]:
    """What decides how well a model learns, by dotted name, for the HPARAMS tab."""
    train = {name: getattr(recipe.train, name) for name in ("steps", "batch_tokens", "dtype", "seed")}
    sections = {"model": asdict(recipe.model), "optimizer": asdict(recipe.optimizer), "train": train}
    flat = {f"{section}.{name}": value for section, table in sections.items() for name, value in table.items()}
    return {"model.parameters": recipe.model.parameter_count(), **flat}


def as_markdown(text: str) -> str:
    """Markdown that shows exactly this text, in one paragraph: what would be Markdown or HTML is escaped."""
    return "".join(map(_escaped, text))


def _escaped(char: str) -> str:
    if char == "\n":
        return "<br>"
    if char in " \t":
        return " " if char == " " else "&nbsp;&nbsp;&nbsp;&nbsp;"
    if char < " " or char == "\x7f":
        return chr(0x2400 + ord(char)) if char < " " else "\u2421"  # the picture of the control character
    if char.isascii() and not char.isalnum():
        return f"&#{ord(char)};"
    return "\ufffd" if unicodedata.category(char) == "Cs" else char


def _text(tag: str, markdown: str) -> Summary:
    metadata = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="text"))
    tensor = TensorProto(dtype="DT_STRING", string_val=[markdown.encode("utf-8")])
    return Summary(value=[Summary.Value(tag=tag, metadata=metadata, tensor=tensor)])
