"""A small stand-in for the Hugging Face Hub on the loopback interface, to which a model can be sent."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class ModelHub:
    """Keeps what is committed to `repository` (made by the client) in `files`; use as a context manager."""

    def __init__(self, repository: str) -> None:
        self.repository = repository
        self.files: dict[str, bytes] = {}
        self.commits = 0
        self.private: bool | None = None  # as the client asked for; None: it made none
        self.refuse: dict[str, int] = {}  # a part of a path -> the status to answer with
        self.asked: list[tuple[str, str]] = []  # method, path
        self._objects: dict[str, bytes] = {}
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> ModelHub:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, Any]:
        self.asked.append((method, path))
        for part, status in self.refuse.items():
            if part in path:
                return status, {"error": "refused"}
        if method == "PUT":
            self._objects[hashlib.sha256(body).hexdigest()] = body
            return 200, {}
        if path == "/api/repos/create":
            self.private = json.loads(body).get("visibility") == "private"
            return 200, {"url": f"{self.url}/{self.repository}", "name": self.repository}
        if path == f"/api/models/{self.repository}/preupload/main":
            return 200, {"files": [_mode(file["path"]) for file in json.loads(body)["files"]]}
        if path == f"/{self.repository}.git/info/lfs/objects/batch":
            return 200, {"transfer": "basic", "objects": [self._upload(o) for o in json.loads(body)["objects"]]}
        if path == f"/api/models/{self.repository}/commit/main":
            self._commit([json.loads(line) for line in body.splitlines()])
            address = f"{self.url}/{self.repository}/commit/{'2' * 40}"
            return 200, {"commitUrl": address, "commitOid": "2" * 40, "hookOutput": "", "success": True}
        if path == "/api/validate-yaml":
            return 200, {"errors": [], "warnings": []}
        if path.startswith(f"/api/models/{self.repository}") and self.private is not None:
            return 200, {"id": self.repository, "sha": "1" * 40, "private": True, "tags": [], "downloads": 0}
        return 404, {"error": "not found"}

    def _upload(self, wanted: dict[str, Any]) -> dict[str, Any]:
        return {**wanted, "actions": {"upload": {"href": f"{self.url}/object/{wanted['oid']}", "header": {}}}}

    def _commit(self, lines: list[dict[str, Any]]) -> None:
        self.commits += 1
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                self.files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                self.files[value["path"]] = self._objects[value["oid"]]


def _mode(path: str) -> dict[str, Any]:
    return {
        "path": path,
        "uploadMode": "lfs" if path.endswith((".safetensors", ".model")) else "regular",
        "shouldIgnore": False,
        "oid": None,
    }


class _Handler(BaseHTTPRequestHandler):
    """Answers for `hub`, which a subclass names."""

    hub: ModelHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        status, content = self.hub.answer(self.command, self.path.split("?")[0], body)
        encoded = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(encoded)))
        self.end_headers()
        self.wfile.write(encoded)

    do_GET = do_POST = do_PUT = _answer  # noqa: N815
