"""`iberis convert from-hf` and `from-nanochat`: their command lines."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from megatron_iberis.command import Parser, path_argument, print_rows, show_notices

if TYPE_CHECKING:
    from megatron_iberis.config import ModelConfig


def add_from_hf(forms: argparse._SubParsersAction[Parser]) -> None:
    command = forms.add_parser("from-hf", help="an export to Hugging Face, back to a folder of weights")
    command.add_argument("--input", type=path_argument, required=True, help="the export's folder")
    _add_output(command)
    command.add_argument("--tokenizer", type=path_argument, help="the folder of ours, where the export has none")
    command.set_defaults(run=_from_hf)


def add_from_nanochat(forms: argparse._SubParsersAction[Parser]) -> None:
    command = forms.add_parser("from-nanochat", help="a checkpoint of the published code, or of nanochat")
    command.add_argument("--input", type=path_argument, required=True, help="the folder with model_*.pt, meta_*.json")
    _add_output(command)
    command.add_argument("--step", type=int, help="which of several (default: the last one)")
    command.add_argument("--tokenizer", type=path_argument, help="tokenizer.pkl, where it does not lie beside")
    command.add_argument(
        "--variant", choices=("en", "jp"), help="where its sizes don't say: English or with Japanese"
    )
    command.set_defaults(run=_from_nanochat)


def _add_output(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--output", type=path_argument, required=True, help="folder to write, which must not be there yet"
    )


def _from_hf(arguments: argparse.Namespace) -> None:
    from megatron_iberis.convert.exported import convert_from_hf

    model = convert_from_hf(arguments.input, arguments.output, arguments.tokenizer)
    _tell(arguments.output, model.config, model.step, model.recipe.run.stage)


def _from_nanochat(arguments: argparse.Namespace) -> None:
    from megatron_iberis.convert.nanochat import convert_from_nanochat

    model = convert_from_nanochat(
        arguments.input, arguments.output, arguments.step, arguments.variant, arguments.tokenizer
    )
    _tell(arguments.output, model.config, model.step, model.stage)
    if silent := model.silent_layers():
        slc2 = model.config.depth - len(model.config.attention_layers)
        show_notices(
            [
                f"{len(silent)} of the {slc2} SLC2 layers add nothing to the model: their convolution or output is "
                "all zeros, as the published code left it at the start (docs/convert.md)"
            ]
        )


def _tell(output: str, model: ModelConfig, step: int, stage: str) -> None:
    attention = len(model.attention_layers)
    form = f", norm inside SLC2 {'on' if model.inner_norm else 'off'}" if attention < model.depth else ""
    print_rows(
        [
            ("weights", output),
            ("model", f"{stage}, {model.parameter_count():,} parameters, trained for {step:,} steps"),
            ("layers", f"{model.depth}: {attention} attention, {model.depth - attention} SLC2{form}"),
            ("to start from", f"--run.start_from {output}"),
        ]
    )
