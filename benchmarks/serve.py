"""Many clients at once: tokens/s, time to the first token, and whether all of them are answered to the end.

    python -m benchmarks.serve --checkpoint demo/sample/run [--streams 64] [--dtype bf16] [--long 1500]
    python -m benchmarks.serve --recipe d12 --streams 16                # random weights of this shape
    python -m benchmarks.serve --checkpoint ... --beside-transformers   # and `transformers serve` of the export
    python -m benchmarks.serve --checkpoint ... --soak 2000 --state-memory 0.03    # clients that leave at random

Rows: one stream alone, then so many at once; --long: three streams, and a prompt of so many tokens that arrives while
they run, with their longest pause beside their usual one. The servers run one after the other, each in a process of
its own, clients in this one; each has answered once before anything is measured. A soak ends with what is still open
and with the server's memory after each tenth, which grows until the room for kept keys and values is full. The last
line is JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil

HEADER = "server          streams  complete  tokens/s  first p50      p99  pause p50      max"


@dataclass
class Stream:
    """What a client has seen."""

    started: float
    times: list[float] = field(default_factory=list)
    """Of each text that came."""
    finished: bool = False
    ended: float = float("nan")
    tokens: int = 0
    head: str = ""
    """What is no event: a refusal."""

    @property
    def pauses(self) -> list[float]:
        """Between two texts."""
        return [b - a for a, b in zip(self.times, self.times[1:], strict=False)]


@dataclass
class Row:
    """A measurement; times in seconds."""

    server: str
    streams: int
    complete: int
    tokens_per_second: float
    first_p50: float
    first_p99: float
    pause_p50: float
    pause_max: float

    def __str__(self) -> str:
        return (
            f"{self.server:<15}{self.streams:>8}{self.complete:>10}{self.tokens_per_second:>10.1f}"
            f"{self.first_p50:>9.3f} s{self.first_p99:>7.3f} s{self.pause_p50:>9.4f} s{self.pause_max:>7.3f} s"
        )


@dataclass(frozen=True)
class Target:
    """A server that runs."""

    name: str
    port: int
    model: str
    process: subprocess.Popen[bytes]
    silent: tuple[int, ...] = ()
    """Ids without a text, which answers are kept from: a pause is then a step, and no answer ends early."""


async def ask(target: Target, prompt: str | list[int], tokens: int, leave_after: float | None = None) -> Stream:
    """The stream of a chat, or of a completion if the prompt is ids, to its end or until the client leaves."""
    chat = isinstance(prompt, str)
    body = {
        "model": target.model,
        **({"messages": [{"role": "user", "content": prompt}]} if chat else {"prompt": prompt}),
        "max_tokens": tokens,
        "temperature": 1.0,
        **({"logit_bias": {str(i): -100 for i in target.silent}} if target.silent else {}),
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    data = json.dumps(body).encode()
    stream = Stream(time.perf_counter())
    reader, writer = await asyncio.open_connection("127.0.0.1", target.port)
    path = "/v1/chat/completions" if chat else "/v1/completions"
    head = f"POST {path} HTTP/1.1\r\nHost: localhost:{target.port}\r\nConnection: close\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
    writer.write(head.encode() + data)
    try:
        await asyncio.wait_for(_read(reader, stream), leave_after)
    except asyncio.TimeoutError:
        pass
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
    return stream


async def _read(reader: asyncio.StreamReader, stream: Stream) -> None:
    while line := await reader.readline():
        if line.startswith(b"data: {"):
            event = json.loads(line[6:])
            choices = event.get("choices") or []
            if any(choice.get("text") or choice.get("delta", {}).get("content") for choice in choices):
                stream.times.append(time.perf_counter())
            if any(choice.get("finish_reason") for choice in choices):
                stream.finished, stream.ended = True, time.perf_counter()
            stream.tokens = (event.get("usage") or {}).get("completion_tokens", stream.tokens)
        elif not stream.times:
            stream.head += line.decode()
    stream.tokens = stream.tokens or len(stream.times)


def summary(name: str, streams: list[Stream]) -> Row:
    """Of streams that ran together."""
    spoke = [stream for stream in streams if stream.times]
    if not spoke:
        raise SystemExit(f"{name}: no stream said anything; the answers began with {streams[0].head!r}")
    firsts = sorted(stream.times[0] - stream.started for stream in spoke)
    pauses = [pause for stream in spoke for pause in stream.pauses] or [0.0]
    seconds = max(s.times[-1] for s in spoke) - min(s.started for s in spoke)
    return Row(
        name,
        len(streams),
        sum(stream.finished for stream in streams),
        sum(stream.tokens for stream in spoke) / seconds,
        statistics.median(firsts),
        firsts[min(len(firsts) - 1, int(0.99 * len(firsts)))],
        statistics.median(pauses),
        max(pauses),
    )


def prompt(number: int) -> str:
    """No two begin alike."""
    return f"{number}. What did the people of village {number} do when the ferry had left?"


async def measure(target: Target, streams: int, tokens: int, long: int) -> list[Row]:
    """One stream, so many together, and three that a long prompt disturbs."""
    await ask(target, prompt(-1), 4)
    for number in range(-6, -1):  # a model of random weights may say nothing
        alone = await ask(target, prompt(number), tokens)
        if len(alone.times) > tokens // 2:
            break
    rows = [summary(target.name, [alone])]
    rows.append(summary(target.name, await asyncio.gather(*(ask(target, prompt(n), tokens) for n in range(streams)))))
    if long:
        running = [asyncio.ensure_future(ask(target, prompt(-n), tokens * 4)) for n in (7, 8, 9)]
        await asyncio.sleep(3 * rows[0].first_p50 + 40 * rows[0].pause_p50)
        disturbing = await ask(target, [300 + i % 200 for i in range(long)], 1)
        disturbed = await asyncio.gather(*running)
        if not disturbing.finished:
            raise SystemExit(f"the long prompt was not answered: {disturbing.head!r}")
        print(told_of_long(long, disturbing, disturbed))
        rows.append(summary(f"{target.name}, long", disturbed))
    return rows


def told_of_long(tokens: int, disturbing: Stream, disturbed: list[Stream]) -> str:
    """What a long prompt cost the streams beside it."""
    steps = [pair for stream in disturbed for pair in zip(stream.times, stream.times[1:], strict=False)]
    usual = statistics.median(b - a for a, b in steps if b < disturbing.started or a > disturbing.ended)
    meanwhile = [b - a for a, b in steps if b > disturbing.started and a < disturbing.ended]
    longest, middle = max(meanwhile), statistics.median(meanwhile)
    first = disturbing.ended - disturbing.started
    return (
        f"a prompt of {tokens} tokens beside three streams: first token after {first:.2f} s; a step of the others\n"
        f"  takes {1e3 * usual:.0f} ms without it, {1e3 * middle:.0f} with it ({middle / usual:.1f} x), "
        f"{1e3 * longest:.0f} at most ({longest / usual:.1f} x)"
    )


async def soak(target: Target, requests: int) -> dict[str, Any]:
    """Requests of which many are left at random; what is open in the end, and how the memory has grown."""
    chance, room = random.Random(0), asyncio.Semaphore(48)
    memory = psutil.Process(target.process.pid).memory_info
    finished = 0

    async def one(number: int) -> None:
        nonlocal finished
        leave = chance.choice([None, 0.0, 0.01, 0.05, 0.2, 1.0])
        async with room:
            stream = await ask(target, prompt(number), chance.choice([1, 8, 40]), leave)
        finished += stream.finished

    grown = []
    for tenth in range(10):
        await asyncio.gather(*(one(number) for number in range(tenth, requests, 10)))
        grown.append(memory().rss >> 20)
    await asyncio.sleep(2)
    with urllib.request.urlopen(f"http://127.0.0.1:{target.port}/health") as answer:
        health = json.loads(answer.read())
    return {
        "requests": requests,
        "finished": finished,
        "running": health["running"],
        "queued": health["queued"],
        "mib_after_each_tenth": grown,
    }


@contextmanager
def started(name: str, model: str, command: list[str], silent: tuple[int, ...] = ()) -> Iterator[Target]:
    """A server for a block; {port} in its command is its port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [word.replace("{port}", str(port)) for word in command]
    with tempfile.TemporaryFile() as log:
        environment = os.environ | {"HF_HUB_OFFLINE": "1"}
        process = subprocess.Popen(words, stdout=log, stderr=log, env=environment)
        try:
            last = time.monotonic() + 300
            while True:
                with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/health"):
                    break
                if process.poll() is not None or time.monotonic() > last:
                    log.seek(0)
                    raise SystemExit(f"{name} does not start:\n{log.read().decode(errors='replace')[-3000:]}")
                time.sleep(0.2)
            yield Target(name, port, model, process, silent)
        finally:
            process.terminate()
            process.wait(60)


def shaped(recipe: str, folder: Path) -> Path:
    """A checkpoint of random weights, with a tokenizer of the demo's texts."""
    from megatron_iberis.checkpoint.weights_only import save_weights
    from megatron_iberis.config import load_recipe
    from megatron_iberis.inference.bench import random_weights
    from megatron_iberis.tokenizer import train

    texts = (line for path in Path("examples/sample").glob("*.jsonl") for line in path.read_text().splitlines())
    tokenizer = train((json.loads(line)["text"] for line in texts), 600, folder / "tokenizer")
    loaded = load_recipe(recipe)
    save_weights(folder / "checkpoint", loaded, tokenizer, random_weights(loaded.model), 0, "random weights")
    return folder / "checkpoint"


def _silent(checkpoint: Path) -> tuple[int, ...]:
    """Ids that have no text of their own: specials, and bytes that are a part of a character."""
    from megatron_iberis.checkpoint.weights import CheckpointWeights, whole_checkpoint
    from megatron_iberis.tokenizer import Tokenizer

    opened = CheckpointWeights(whole_checkpoint(checkpoint))
    opened.close()
    tokenizer = Tokenizer.load(opened.tokenizer)
    texts = {i: tokenizer.decode_bytes([i]).decode(errors="ignore") for i in range(tokenizer.vocab_size)}
    return (*tokenizer.specials.values(), *(i for i, text in texts.items() if not text))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    model = parser.add_mutually_exclusive_group(required=True)
    model.add_argument("--checkpoint", type=Path)
    model.add_argument("--recipe")
    parser.add_argument("--dtype", default="fp32")
    parser.add_argument("--streams", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=64, help="of an answer")
    parser.add_argument("--long", type=int, default=0, help="tokens of a prompt that disturbs three streams")
    parser.add_argument("--soak", type=int, default=0, help="requests with random cancellations")
    parser.add_argument("--state-memory", type=float, default=1.0, help="GiB for keys and values")
    parser.add_argument("--beside-transformers", action="store_true")
    arguments = parser.parse_args()
    found: dict[str, Any] = {"rows": []}
    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.checkpoint or shaped(arguments.recipe, Path(scratch))
        iberis = "import sys; from megatron_iberis.cli import main; sys.exit(main())"
        serve = [sys.executable, "-c", iberis, "serve", "--checkpoint", str(folder), "--port", "{port}"]
        serve += ["--dtype", arguments.dtype, "--max-requests", str(arguments.streams), "--force-chat"]
        serve += ["--state-memory", str(arguments.state_memory)]
        print(HEADER)
        with started("iberis serve", "served", [*serve, "--model-name", "served"], _silent(folder)) as target:
            rows = asyncio.run(measure(target, arguments.streams, arguments.tokens, arguments.long))
            print(*rows, sep="\n", flush=True)
            if arguments.soak:
                found["soak"] = asyncio.run(soak(target, arguments.soak))
                print("; ".join(f"{name} {value}" for name, value in found["soak"].items()))
        if arguments.beside_transformers:
            rows += _transformers(Path(folder), Path(scratch), arguments)
    found["rows"] = [asdict(row) for row in rows]
    print(json.dumps(found))


def _transformers(checkpoint: Path, scratch: Path, arguments: argparse.Namespace) -> list[Row]:
    from megatron_iberis.convert.huggingface.export import export

    exported = scratch / "exported"
    export(checkpoint, exported, "bf16" if arguments.dtype == "bf16" else "fp32")
    program = str(Path(sys.executable).parent / "transformers")
    command = [program, "serve", str(exported), "--trust-remote-code", "--device", "cpu", "--host", "127.0.0.1"]
    with started("transformers", str(exported), [*command, "--port", "{port}"]) as target:
        rows = asyncio.run(measure(target, arguments.streams, arguments.tokens, 0))
    print(*rows, sep="\n", flush=True)
    return rows


if __name__ == "__main__":
    main()
