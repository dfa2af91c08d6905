"""Training speed of Iberis beside the plain-PyTorch reference, in one process: forward + backward, tokens a second.

    python benchmarks/train_step.py [--variant en jp] [--dtype fp32 bf16] [--device cpu] [--threads 2] [--rounds 7]

They take turns (A B C A B C ...), so that whatever else the machine does meets all; medians and quartiles are
printed, and the ratio of each round. "documents apart" is Iberis with data.document_mask, and documents of --document
tokens on average. The shape is a small one (depth 4, width 256, batch 4 x 512, vocabulary 8192) that a laptop runs in
a minute; --depth, --batch, --context and --vocabulary make it larger.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from rich.console import Console
from rich.table import Table

from megatron_iberis.config import ModelConfig
from megatron_iberis.model.initialization import build_model, fill_parameters
from megatron_iberis.model.parameters import shards
from megatron_iberis.model.reference import ReferenceIberis
from megatron_iberis.parallel.groups import ParallelGroups
from megatron_iberis.parallel.start import start_process_group

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
Step = Callable[[], None]


def model_config(variant: str, options: argparse.Namespace) -> ModelConfig:
    """The English model, or the Japanese-English one, at the size asked for."""
    jp = variant == "jp"
    return ModelConfig(
        depth=options.depth,
        head_size=64 if jp else 128,
        mlp_ratio=5.5 if jp else 4.0,
        inner_norm=jp,
        vocab_size=options.vocabulary,
        sequence_length=options.context,
    ).resolved()


def training_steps(
    config: ModelConfig, dtype: torch.dtype, device: torch.device, batch: int, document: int
) -> dict[str, Step]:
    """Forward + backward of both models, from the same weights and on the same tokens."""
    reference, iberis = ReferenceIberis(config), build_model(config, ParallelGroups.create())
    fill_parameters(shards(iberis), reference.state_dict())
    stream = torch.randint(config.vocab_size, (batch, config.sequence_length + 1), device=device)

    begins = torch.rand(batch, config.sequence_length) < 1 / document
    begins[:, 0] = True
    cu_seqlens = torch.cat((begins.flatten().nonzero().flatten(), torch.tensor([begins.numel()])))

    def step_of(model: torch.nn.Module, *documents: torch.Tensor) -> Step:
        model.to(device, dtype)

        def step() -> None:
            model.zero_grad(set_to_none=True)
            model(stream[:, :-1], stream[:, 1:], *documents).backward()
            if device.type == "cuda":
                torch.cuda.synchronize()

        return step

    apart = step_of(iberis, cu_seqlens)
    return {"Iberis": step_of(iberis), "documents apart": apart, "reference": step_of(reference)}


def measure(steps: dict[str, Step], tokens: int, rounds: int) -> dict[str, list[float]]:
    """Tokens a second of each round; two rounds before them are not counted."""
    speeds: dict[str, list[float]] = {name: [] for name in steps}
    for round_number in range(-2, rounds):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            if round_number >= 0:
                speeds[name].append(tokens / (time.perf_counter() - start))
    return speeds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variant", nargs="+", choices=["en", "jp"], default=["en", "jp"])
    parser.add_argument("--dtype", nargs="+", choices=list(DTYPES), default=list(DTYPES))
    parser.add_argument("--device", nargs="+", help="default: the CPU, and the GPU where there is one")
    parser.add_argument("--threads", type=int, default=2, help="of the CPU")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--depth", type=int, default=4)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--context", type=int, default=512)
    parser.add_argument("--vocabulary", type=int, default=8192)
    parser.add_argument("--document", type=int, default=128, help="tokens of a document, on average")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    start_process_group(timeout_minutes=5)

    title = f"Forward + backward, depth {options.depth}, batch {options.batch} x {options.context}, tokens/s"
    table = Table("device", "dtype", "variant", "model", "median", "quartiles", "against reference", title=title)
    for device in options.device or ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]:
        for dtype in options.dtype:
            for variant in options.variant:
                config = model_config(variant, options)
                steps = training_steps(config, DTYPES[dtype], torch.device(device), options.batch, options.document)
                speeds = measure(steps, options.batch * options.context, options.rounds)
                for name, found in speeds.items():
                    low, median, high = statistics.quantiles(found, n=4)
                    ratio = statistics.median(a / b for a, b in zip(found, speeds["reference"], strict=True))
                    spread = f"{low:,.0f} - {high:,.0f}"
                    table.add_row(device, dtype, variant, name, f"{median:,.0f}", spread, f"{ratio:.2f} x")
                table.add_section()
    Console().print(table)


if __name__ == "__main__":
    main()
