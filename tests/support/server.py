"""A small server in this process, on a port of its own, and what asks it without a client library."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from megatron_iberis.config import Recipe
from megatron_iberis.config.run import RunConfig
from megatron_iberis.inference.decoder import Decoder
from megatron_iberis.inference.load import LoadedModel
from megatron_iberis.serving.api.app import Application
from megatron_iberis.serving.api.opened import Opened
from megatron_iberis.serving.api.server import Server, listen
from megatron_iberis.serving.api.settings import Settings
from tests.support.decoding import random_weights, shape
from tests.support.tokenizers import small_tokenizer

CONTEXT = 256


def tiny_model(stage: str = "chat", context: int = CONTEXT, seed: int = 0) -> LoadedModel:
    """Random weights, the small bilingual tokenizer."""
    tokenizer = small_tokenizer()
    given = vars(shape("grouped heads, K 2")) | {"vocab_size": tokenizer.vocab_size, "sequence_length": context}
    config = type(shape("one layer"))(**given).resolved()
    decoder = Decoder(config, random_weights(config, seed), torch.float32)
    return LoadedModel(decoder, tokenizer, Recipe(model=config, run=RunConfig(stage=stage)), 7)  # type: ignore[arg-type]


def opener(model: LoadedModel, max_requests: int = 16, memory_bytes: int = 2**26) -> Callable[[], Opened]:
    """Opens it as `iberis serve` does."""

    def open_model() -> Opened:
        torch.set_num_threads(1)  # of this thread: models so small that a second one only gets in the way
        return Opened.of(model, max_requests, memory_bytes)

    return open_model


@dataclass
class Running:
    """A server that takes requests."""

    application: Application
    server: Server
    port: int
    thread: threading.Thread

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def base_url(self) -> str:
        return f"{self.address}/v1"

    def wait_until(self, condition: Callable[[], bool], seconds: float = 20.0) -> None:
        last = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < last, "it does not come to be"
            time.sleep(0.005)

    def wait_for_idle(self) -> None:
        """Until nothing is left to answer: every slot is free."""
        thread = self.application.thread
        self.wait_until(lambda: thread.open == 0 and thread.running == 0)

    def ask(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, str], Any]:
        """Status, headers by lower-case name, and the body: parsed if it is JSON. body: bytes go as they are."""
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        sent = {"Content-Type": "application/json"} if data is not None else {}
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)) as connection:
            connection.request(method, path, data, sent | (headers or {}))
            answer = connection.getresponse()
            content = answer.read()
            found = {name.lower(): value for name, value in answer.getheaders()}
        is_json = found.get("content-type", "").startswith("application/json")
        return answer.status, found, json.loads(content) if is_json else content

    def events(self, path: str, body: dict[str, Any]) -> list[Any]:
        """A stream's events, parsed; the last one as it is."""
        status, _, content = self.ask("POST", path, body | {"stream": True})
        assert status == 200, content
        lines = [line for line in content.decode().split("\n\n") if line]
        assert all(line.startswith(("data: ", ": ")) for line in lines)
        data = [line.removeprefix("data: ") for line in lines if not line.startswith(":")]
        return [json.loads(one) if one.startswith("{") else one for one in data]

    def send(self, path: str, body: dict[str, Any]) -> socket.socket:
        """A request whose answer is left to be read, to the end of the connection."""
        data = json.dumps(body).encode()
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n"
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=30)
        connection.sendall(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)
        return connection


@contextmanager
def serving(
    open_model: Callable[[], Opened],
    settings: Settings | None = None,
    ready: bool = True,
    **options: Any,
) -> Iterator[Running]:
    """A server for a block. ready: wait for the model. options: of `Application`."""
    application = Application(settings or Settings("tiny"), open_model, **options)
    server = Server(application)
    listening = listen("127.0.0.1", 0)
    port = listening.getsockname()[1]
    thread = threading.Thread(target=lambda: server.run(sockets=[listening]), name="server", daemon=True)
    thread.start()
    running = Running(application, server, port, thread)
    running.wait_until(lambda: server.started)
    if ready:
        running.wait_until(lambda: application.thread.state != "loading")
    try:
        yield running
    finally:
        server.should_exit = True
        thread.join(timeout=30)
        assert not thread.is_alive(), "the server does not stop"
