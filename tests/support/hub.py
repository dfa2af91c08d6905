"""A small stand-in for the Hugging Face Hub on the loopback interface, with faults on request."""

from __future__ import annotations

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Hub:
    """Serves `files` (path -> content) of one data set at one revision; use as a context manager."""

    def __init__(self, repository: str, files: dict[str, bytes]) -> None:
        self.repository = repository
        self.files = files
        self.revision = "1" * 40
        self.in_git: set[str] = set()  # files that are small enough to be no LFS files
        self.cut_after: dict[str, int] = {}  # path -> bytes, after which the connection breaks, once
        self.wrong: dict[str, int] = {}  # path -> how many times another content of the same length comes
        self.stall_at: str | None = None  # a file in whose middle nothing more comes, until the server ends
        self.stalled = threading.Event()
        self._end = threading.Event()
        self.asked: list[tuple[str, str, str | None]] = []  # method, path, Range
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Hub:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._server.shutdown()
        self._server.server_close()

    def sent(self, path: str) -> list[str | None]:
        """The Range of each request for the content of a file."""
        return [ranges for method, asked, ranges in self.asked if method == "GET" and asked.endswith("/" + path)]

    def digest(self, path: str) -> str:
        content = self.files[path]
        if path in self.in_git:
            return hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()
        return hashlib.sha256(content).hexdigest()

    def tree(self) -> list[dict[str, Any]]:
        entries: list[dict[str, Any]] = []
        for path, content in self.files.items():
            entry: dict[str, Any] = {"type": "file", "path": path, "size": len(content), "oid": self.digest(path)}
            if path not in self.in_git:
                entry |= {
                    "oid": "0" * 40,
                    "lfs": {"oid": self.digest(path), "size": len(content), "pointerSize": 130},
                }
            entries.append(entry)
        folders = {path.rsplit("/", 1)[0] for path in self.files if "/" in path}
        return [*entries, *({"type": "directory", "path": folder, "oid": "0" * 40} for folder in folders)]


class _Handler(BaseHTTPRequestHandler):
    """Answers for `hub`, which a subclass names."""

    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(False)

    def do_GET(self) -> None:
        self._answer(True)

    def _answer(self, with_body: bool) -> None:
        path = self.path.split("?")[0]
        self.hub.asked.append((self.command, path, self.headers.get("Range")))
        if path.startswith(f"/api/datasets/{self.hub.repository}/tree/{self.hub.revision}"):
            self._send(200, json.dumps(self.hub.tree()).encode(), {}, with_body)
        elif path.startswith(f"/api/datasets/{self.hub.repository}"):
            answer = {
                "id": self.hub.repository,
                "sha": self.hub.revision,
                "private": False,
                "tags": [],
                "downloads": 0,
            }
            self._send(200, json.dumps(answer).encode(), {}, with_body)
        elif path.startswith(f"/datasets/{self.hub.repository}/resolve/{self.hub.revision}/"):
            self._send_file(path.split(f"/resolve/{self.hub.revision}/")[1], with_body)
        else:
            self._send(404, b"{}", {"X-Error-Code": "RepoNotFound"}, with_body)

    def _send_file(self, path: str, with_body: bool) -> None:
        content = self.hub.files[path]
        headers = {"ETag": f'"{self.hub.digest(path)}"', "X-Repo-Commit": self.hub.revision, "Accept-Ranges": "bytes"}
        if with_body and self.hub.wrong.get(path, 0):
            self.hub.wrong[path] -= 1
            content = bytes(255 - byte for byte in content)
        start = 0
        if with_body and (ranges := self.headers.get("Range")):
            start = int(ranges.removeprefix("bytes=").split("-")[0])
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        cut = self.hub.cut_after.pop(path, None) if with_body else None
        if with_body and path == self.hub.stall_at:
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[: len(content) // 2])
            self.hub.stalled.set()
            self.hub._end.wait()
            return
        self._send(206 if start else 200, content[start:], headers, with_body, cut)

    def _send(
        self, status: int, body: bytes, headers: dict[str, str], with_body: bool, cut: int | None = None
    ) -> None:
        self.send_response(status)
        for name, value in ({"Content-Type": "application/json"} | headers).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if with_body:
            self.wfile.write(body[:cut])
        if cut is not None:
            self.close_connection = True
