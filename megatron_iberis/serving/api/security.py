"""What keeps a server on this machine from being used by others: two ASGI layers around the app.

* `OnlyKnownHosts`: the Host header must name this server. A page of a foreign site whose name was made to point here
  (DNS rebinding) sends its own name.
* `Guarded`: the API key, compared in constant time; bodies are application/json, which a form of a foreign site can't
  send, and not larger than the limit.

Plain ASGI: a layer that reads answers through would hide from them that their client has left.
"""

from __future__ import annotations

import hmac
import ipaddress
import re
import secrets
import socket
from collections.abc import Collection

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from megatron_iberis.errors import InputError
from megatron_iberis.serving.api.errors import APIError

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
_OPEN = frozenset({"/", "/health", "/docs", "/openapi.json"})
"""Paths that need no key: they hold nothing of the model's or of its users."""
_REQUEST_ID = re.compile(r"[\w.:-]{1,128}", re.ASCII)


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches the address. InputError if there is no such host."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise InputError(f"there is no host {host!r}: give an address of this machine, as 127.0.0.1.") from None
    return all(ipaddress.ip_address(str(address[4][0]).partition("%")[0]).is_loopback for address in found)


def host_of(header: str) -> str:
    """The name in a Host header, without the port; lower case."""
    found = re.fullmatch(r"\[([0-9a-fA-F:.]+)\](?::\d*)?|([^:\[\]]*)(?::\d*)?", header.strip())
    return (found[1] or found[2] or "").lower().rstrip(".") if found else ""


class OnlyKnownHosts:
    """Answers 403 to requests for hosts other than the known ones; gives each request an id, which its answer names.

    any_address: numeric addresses are known, too. They can't be made to point elsewhere, and a server that is bound
    to all of a machine's addresses does not know them.
    """

    def __init__(self, app: ASGIApp, hosts: Collection[str], any_address: bool = False) -> None:
        self._app, self._any_address = app, any_address
        self._hosts = {host.lower() for host in hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        headers = Headers(scope=scope)
        given = headers.get("x-request-id", "")
        request_id = given if _REQUEST_ID.fullmatch(given) else f"req-{secrets.token_hex(12)}"
        scope["request_id"] = request_id

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["x-request-id"] = request_id
            await send(message)

        hosts = headers.getlist("host")
        host = host_of(hosts[0]) if len(hosts) == 1 else ""
        if self._known(host):
            return await self._app(scope, receive, send_with_id)
        message = f"this server does not answer for the host {host!r}: start it with --allowed-host to allow it."
        await APIError(403, message).response(scope, receive, send_with_id)

    def _known(self, host: str) -> bool:
        return host in self._hosts or (self._any_address and _is_address(host))


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


class Guarded:
    """Asks for the key, if there is one, and takes only bodies of JSON with at most so many bytes."""

    def __init__(self, app: ASGIApp, key: str = "", body_limit: int = 2**20) -> None:
        self._app, self._key, self._limit = app, key, body_limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        try:
            self._check(scope["path"], scope["method"], Headers(scope=scope))
            if scope["method"] in ("POST", "PUT", "PATCH"):
                replayed = await self._read(receive)
                if replayed is None:
                    return
                receive = replayed
        except APIError as error:
            return await error.response(scope, receive, send)
        await self._app(scope, receive, send)

    def _check(self, path: str, method: str, headers: Headers) -> None:
        if self._key and path not in _OPEN:
            scheme, _, given = headers.get("authorization", "").partition(" ")
            same = hmac.compare_digest(given.strip().encode("latin-1"), self._key.encode())
            if scheme.lower() != "bearer" or not same:
                what = "is not this server's" if given else "is missing: send Authorization: Bearer with it"
                raise APIError(401, f"the API key {what}.", code="invalid_api_key")
        if method in ("POST", "PUT", "PATCH"):
            kind = headers.get("content-type", "").partition(";")[0].strip().lower()
            if kind != "application/json":
                raise APIError(415, f"the body's type is {kind!r}: send application/json.")
            length = headers.get("content-length", "")
            if length.isdigit() and int(length) > self._limit:
                raise self._too_large()

    async def _read(self, receive: Receive) -> Receive | None:
        """Reads the body; gives a `receive` that has it at first, and then waits for the client to leave.

        None if it has left already.
        """
        parts, size, more = list[bytes](), 0, True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > self._limit:
                raise self._too_large()
            more = message.get("more_body", False)
        given = False

        async def again() -> Message:
            nonlocal given
            if given:
                return await receive()
            given = True
            return {"type": "http.request", "body": b"".join(parts), "more_body": False}

        return again

    def _too_large(self) -> APIError:
        return APIError(413, f"the body has more than {self._limit:,} bytes: send less at once.")
