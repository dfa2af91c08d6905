"""Time to the first token of a second turn, with and without the keys and values of the first.

    python benchmarks/second_turn.py [--recipe d12] [--dtype bf16] [--tokens 1500] [--rounds 3]

The first turn is a prompt of so many random tokens and an answer of 20; the second is both, and 30 tokens more. With
and without take turns; "without" is an engine that has seen nothing. Random weights.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch

from megatron_iberis.config import load_recipe
from megatron_iberis.inference.bench import random_weights
from megatron_iberis.inference.decoder import Decoder
from megatron_iberis.inference.engine import Engine
from megatron_iberis.inference.requests import Request
from megatron_iberis.inference.sampling import Sampling

ANSWER, MORE = 20, 30


def first_token(engine: Engine, prompt: list[int], tokens: int = 1) -> tuple[float, Request]:
    """Seconds to the first token of an answer of so many, which is then finished."""
    started = time.perf_counter()
    request = engine.submit(prompt, Sampling(temperature=0), tokens)
    while not request.answer:
        engine.step()
    seconds = time.perf_counter() - started
    while not engine.idle:
        engine.step()
    return seconds, request


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="d12")
    parser.add_argument("--dtype", choices=["fp32", "bf16", "int8"], default="bf16")
    parser.add_argument("--tokens", type=int, default=1500, help="of the first prompt")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    config = load_recipe(arguments.recipe).model
    dtype = torch.bfloat16 if arguments.dtype == "bf16" else torch.float32
    with torch.inference_mode():
        decoder = Decoder(config, random_weights(config), dtype, body=arguments.dtype, head=arguments.dtype)
    generator = torch.Generator().manual_seed(0)
    found: dict[str, list[float]] = {"first turn": [], "second, with": [], "second, without": []}
    for _ in range(arguments.rounds):
        prompt, more = (
            torch.randint(config.vocab_size, (n,), generator=generator).tolist() for n in (arguments.tokens, MORE)
        )
        engine = Engine(decoder, 1)
        seconds, turn = first_token(engine, prompt, ANSWER)
        found["first turn"].append(seconds)
        seconds, second = first_token(engine, [*turn.ids, *more])
        found["second, with"].append(seconds)
        seconds, _ = first_token(Engine(decoder, 1), [*turn.ids, *more])
        found["second, without"].append(seconds)
    print(f"{arguments.recipe}, {arguments.dtype}, {arguments.tokens} tokens, {torch.get_num_threads()} threads")
    print(f"the second prompt: {len(second.prompt)} tokens, {second.cached_tokens} of them not run again")
    for what, times in found.items():
        print(f"{what:<18}{statistics.median(times):8.3f} s  ({', '.join(f'{t:.3f}' for t in times)})")


if __name__ == "__main__":
    main()
