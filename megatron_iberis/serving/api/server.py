"""The application on a socket, until it is told to stop."""

from __future__ import annotations

import logging
import os
import socket

import uvicorn

from megatron_iberis.errors import InputError
from megatron_iberis.serving.api.app import Application
from megatron_iberis.serving.api.security import is_loopback

_SECONDS_TO_CLOSE = 5
"""After the last answer has ended, for its client to read it."""


def check_exposure(host: str, key: str, insecure: bool) -> None:
    """InputError if others than this machine's users could ask without a key, and that is not wanted."""
    if not (is_loopback(host) or key or insecure):
        raise InputError(
            f"--host {host} lets other machines in: give a key that they must send (--api-key, or IBERIS_API_KEY), "
            "or allow everyone who reaches it (--insecure)."
        )


def listen(host: str, port: int) -> socket.socket:
    """A socket that takes connections. InputError if it can't be had."""
    if not 0 <= port <= 65535:  # getaddrinfo would take what is left of it after a division
        raise InputError(f"--port is {port}: it must be 0 to 65535.")
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family)
    except (OSError, OverflowError) as error:
        reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
        raise InputError(f"{host}:{port}: {reason}: choose another --host or --port.") from None


class Server(uvicorn.Server):
    """SIGTERM and Ctrl-C: nothing new is taken, and what is being answered has `settings.grace` seconds."""

    def __init__(self, application: Application) -> None:
        config = uvicorn.Config(
            application,
            http="h11",
            loop="asyncio",
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=int(application.settings.grace) + _SECONDS_TO_CLOSE,
        )
        super().__init__(config)
        self._application = application

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Of uvicorn's, called once."""
        self._application.thread.stop(self._application.settings.grace)
        await super().shutdown(sockets)


def serve(server: Server, application: Application, listening: socket.socket) -> None:
    """Runs until a signal comes, or the model can't be loaded: then the reason is raised."""
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    server.run(sockets=[listening])
    if application.thread.error:
        raise application.thread.error
