"""`iberis convert to-hf`: its command line."""

from __future__ import annotations

import argparse
import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from megatron_iberis.command import Parser, path_argument, print_rows
from megatron_iberis.errors import InputError

_UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9}


def add_to_hf(forms: argparse._SubParsersAction[Parser]) -> None:
    """Adds the subcommand."""
    command = forms.add_parser("to-hf", help="a folder for Hugging Face's transformers, compared before it is there")
    command.add_argument("--input", type=path_argument, required=True, help="a run folder, or one of its checkpoints")
    command.add_argument("--output", type=path_argument, required=True, help="the folder to write: a new one")
    command.add_argument("--dtype", choices=("fp32", "bf16"), default="fp32", help="of the weights (default: fp32)")
    command.add_argument(
        "--max-shard-size", default="5GB", metavar="SIZE", help="of one file of weights, like 500MB (default: 5GB)"
    )
    command.add_argument(
        "--report",
        type=path_argument,
        metavar="FOLDER",
        help="what iberis report wrote: the model card is made of it",
    )
    command.add_argument("--push-to", metavar="USER/NAME", help="send the folder to this repository of the Hub too")
    command.set_defaults(run=_to_hf)


def _to_hf(arguments: argparse.Namespace) -> None:
    from megatron_iberis.hub import check_repository, publish

    _require_transformers()
    shard_bytes = _bytes_of(arguments.max_shard_size)
    if arguments.push_to is not None:
        check_repository(arguments.push_to)
    from megatron_iberis.convert.huggingface.export import export
    from megatron_iberis.convert.huggingface.reported import read_report

    report = read_report(Path(arguments.report)) if arguments.report else None
    exported = export(Path(arguments.input), Path(arguments.output), arguments.dtype, shard_bytes, report)
    rows = [
        ("folder", str(exported.folder)),
        ("step", f"{exported.step:,}"),
        ("parameters", f"{exported.parameters:,}"),
        ("logits differ by", f"{exported.difference.fp32:.1e} at most, computed in fp32"),
    ]
    if arguments.dtype != "fp32":
        rows.append(("", f"{exported.difference.stored:.1e} at most, computed in {arguments.dtype}"))
    print_rows(rows)
    if arguments.push_to is not None:
        print_rows([("sent to", publish(exported.folder, arguments.push_to))])


def _require_transformers() -> None:
    """InputError unless transformers is there, which compares the export, and new enough."""
    try:
        found = version("transformers")
    except PackageNotFoundError:
        found = "none"
    if found == "none" or tuple(int(part) for part in found.split(".")[:2]) < (5, 18):
        raise InputError(
            f"an export needs transformers 5.18 or newer (here: {found}): pip install 'megatron_iberis[hf]'."
        )


def _bytes_of(size: str) -> int:
    found = re.fullmatch(r"(\d+) ?([KMG]B)", size.upper())
    if not found or int(found[1]) == 0:
        raise InputError(f"--max-shard-size {size} is no size: write it like 500MB or 5GB.")
    return int(found[1]) * _UNITS[found[2]]
