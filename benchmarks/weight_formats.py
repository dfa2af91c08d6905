"""What bf16 and int8 weights cost in bits per byte on held-out text, body and head told apart.

    python benchmarks/weight_formats.py --checkpoint RUN --val PREFIX [--rows 200]

The same rows for each; the decoder runs them as one chunk each. Bits per byte as in training (evaluation/).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
import torch.nn.functional as F

from megatron_iberis.checkpoint.weights import CheckpointWeights, whole_checkpoint
from megatron_iberis.data.token_files.reader import TokenFile
from megatron_iberis.evaluation.bits_per_byte import TextLoss
from megatron_iberis.inference.decoder import Decoder
from megatron_iberis.inference.state import Memory
from megatron_iberis.inference.steps import Chunk, RaggedStep
from megatron_iberis.tokenizer import Tokenizer

FORMATS = (
    ("fp32", "fp32"),
    ("bf16", "fp32"),
    ("fp32", "bf16"),
    ("bf16", "bf16"),
    ("int8", "fp32"),
    ("fp32", "int8"),
    ("int8", "int8"),
)


@torch.inference_mode()
def loss_of(decoder: Decoder, rows: torch.Tensor, token_bytes: torch.Tensor) -> TextLoss:
    """rows: [N, T + 1]."""
    memory = Memory(decoder.config, rows.shape[1], 1, decoder.dtype)
    nats, tokens, bytes_ = 0.0, 0, 0
    for row in rows:
        state = memory.take(rows.shape[1])
        assert state is not None
        step = RaggedStep([Chunk(row[:-1].tolist(), state, len(row) - 1)], memory)
        logits = decoder(step.tokens, step, step.wanted)
        memory.release(state)
        lengths = token_bytes[row[1:]]
        nats += (F.cross_entropy(logits, row[1:], reduction="none").double() * (lengths > 0)).sum().item()
        tokens, bytes_ = tokens + int((lengths > 0).sum()), bytes_ + int(lengths.sum())
    return TextLoss(nats, tokens, bytes_)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--val", required=True, help="prefix of a token file")
    parser.add_argument("--rows", type=int, default=200)
    arguments = parser.parse_args()
    checkpoint = CheckpointWeights(whole_checkpoint(arguments.checkpoint))
    config, weights = checkpoint.recipe.model, dict(checkpoint.weights)
    token_bytes = torch.from_numpy(Tokenizer.load(checkpoint.tokenizer).token_bytes()).long()
    file = TokenFile(Path(arguments.val))
    length = config.sequence_length + 1
    count = min(arguments.rows, file.num_tokens // length)
    rows = torch.from_numpy(file.tokens(0, count * length).astype("int64")).view(count, length)
    print(f"{arguments.checkpoint}, step {checkpoint.step}, {count} rows of {config.sequence_length}")
    print(f"{'body':<8}{'head':<8}{'activations':<14}{'bits per byte':>14}{'change':>12}")
    exact = 0.0
    for body, head in FORMATS:
        dtype = torch.bfloat16 if (body, head) == ("bf16", "bf16") else torch.float32
        found = loss_of(Decoder(config, weights, dtype, body=body, head=head), rows, token_bytes).bits_per_byte
        exact = exact or found
        kind = str(dtype).removeprefix("torch.")
        print(f"{body:<8}{head:<8}{kind:<14}{found:>14.6f}{100 * (found / exact - 1):>+11.4f} %", flush=True)


if __name__ == "__main__":
    main()
