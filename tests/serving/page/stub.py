"""A scripted stand-in for the server: real HTTP on loopback, answers written by the test, every request kept.

It serves the page itself, /health and /v1/models, and plays for each POST the next script of `answers` (the last one
again when they run out). A script is a list of bytes to send, seconds to wait, events to wait for, or CUT to close
the connection.
"""

from __future__ import annotations

import json
import secrets
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from megatron_iberis.serving.page import headers_for, page

CUT = object()
Script = list[Any]


def event(body: Any) -> bytes:
    return b"data: " + (body if isinstance(body, bytes) else json.dumps(body, ensure_ascii=False).encode()) + b"\n\n"


def piece(text: str | None = None, finish: str | None = None, base: bool = False) -> bytes:
    choice: dict[str, Any] = {"index": 0, "finish_reason": finish}
    if base:
        choice["text"] = text or ""
    else:
        choice["delta"] = {} if text is None else {"content": text}
    return event({"id": "x", "object": "chat.completion.chunk", "model": "stub", "choices": [choice], "usage": None})


def usage(prompt: int, completion: int, cached: int = 0) -> bytes:
    counts = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
    return event({"choices": [], "usage": {**counts, "prompt_tokens_details": {"cached_tokens": cached}}})


def answer(*texts: str | threading.Event, finish: str = "stop", wait: float = 0.0, base: bool = False) -> Script:
    """A whole stream: the role, the texts with `wait` seconds between them, how it ended, usage, [DONE]."""
    start = [] if base else [event({"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]})]
    middle: Script = []
    for text in texts:
        middle += [wait, piece(text, base=base)] if isinstance(text, str) else [text]
    return [*start, *middle, piece(finish=finish, base=base), usage(20, len(texts), 12), event(b"[DONE]")]


def refusal(status: int, message: str) -> tuple[int, dict[str, Any]]:
    return status, {"error": {"message": message, "type": "error", "param": None, "code": None}}


class Stub:
    """What the server does and has seen. `answers` holds scripts, or (status, body) for a refusal."""

    def __init__(self) -> None:
        self.reset()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"stub": self}))
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self.thread.start()
        self.port = self.server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}/"

    def reset(self) -> None:
        self.answers: list[Any] = [answer("Hello", " there", ".")]
        self.health: dict[str, Any] = {"status": "ok"}
        self.model: dict[str, Any] = {"id": "stub", "object": "model", "context_length": 2048, "stage": "chat"}
        self.key: str | None = None
        self.think = 0.0  # seconds before /v1/models answers
        self.requests: list[tuple[str, str]] = []
        self.bodies: list[dict[str, Any]] = []
        self.left = 0

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def next_answer(self) -> Any:
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    stub: Stub

    def log_message(self, *_: object) -> None:
        pass

    def setup(self) -> None:
        super().setup()
        self.connection.setsockopt(6, 1, 1)  # TCP_NODELAY: every piece is a piece of its own

    def whole(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def json(self, status: int, body: Any) -> None:
        self.whole(status, json.dumps(body).encode(), {"Content-Type": "application/json"})

    def allowed(self) -> bool:
        return self.stub.key is None or self.headers.get("Authorization") == f"Bearer {self.stub.key}"

    def parse_request(self) -> bool:
        # Also as behind a proxy that gives the server a path below others.
        done = super().parse_request()
        if done:
            self.path = self.path.removeprefix("/below/a/path")
        return done

    def do_GET(self) -> None:
        self.stub.requests.append(("GET", self.path))
        if self.path == "/":
            nonce = secrets.token_urlsafe(18)
            headers = {"Content-Type": "text/html; charset=utf-8", **headers_for(nonce)}
            self.whole(200, page(nonce).encode(), headers)
        elif self.path == "/health":
            self.json(200 if self.stub.health["status"] == "ok" else 503, self.stub.health)
        elif self.path == "/v1/models" and self.allowed():
            time.sleep(self.stub.think)
            self.json(200, {"object": "list", "data": [self.stub.model]})
        else:
            time.sleep(self.stub.think)
            self.json(*refusal(401 if self.path == "/v1/models" else 404, "no"))

    def do_POST(self) -> None:
        self.stub.requests.append(("POST", self.path))
        self.stub.bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        script = self.stub.next_answer() if self.allowed() else refusal(401, "wrong key")
        if isinstance(script, tuple):
            self.json(*script)
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        try:
            for part in _parts(script):
                self.wfile.write(f"{len(part):x}\r\n".encode() + part + b"\r\n")
                self.wfile.flush()
            self.wfile.write(b"0\r\n\r\n")
        except (BrokenPipeError, ConnectionResetError):
            self.stub.left += 1
            self.close_connection = True
        except _CutError:
            self.close_connection = True


class _CutError(Exception):
    pass


def _parts(script: Script) -> Iterator[bytes]:
    for step in script:
        if step is CUT:
            raise _CutError
        if isinstance(step, bytes):
            yield step
        elif isinstance(step, threading.Event):
            step.wait(60)
        else:
            time.sleep(step)
