"""`Settings`: how a server behaves."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Annotated

from megatron_iberis.config.checks import Above, AtLeast, check_bounds
from megatron_iberis.serving.api.security import LOOPBACK


@dataclass(frozen=True)
class Settings:
    """InputError for what is out of its bounds."""

    model: str
    """The name by which clients ask for it."""
    key: str = ""
    """That clients have to send; empty: none."""
    hosts: frozenset[str] = LOOPBACK
    """Names that requests may be sent to."""
    any_address: bool = False
    """Whether they may be sent to any numeric address."""
    origins: tuple[str, ...] = ()
    """Of web pages that may use the server (CORS)."""
    max_requests: Annotated[int, AtLeast(1)] = 16
    """Answers that are made at a time."""
    queue: Annotated[int, AtLeast(0)] = 128
    """Answers that may wait for their turn."""
    time_limit: Annotated[float, Above(0)] = 600.0
    """Seconds that an answer may take, from its request on."""
    grace: Annotated[float, AtLeast(0)] = 20.0
    """Seconds that answers have to come to their end when the server is told to stop."""
    body_limit: Annotated[int, AtLeast(1)] = 2**20
    """Bytes of a request."""
    comment_every: Annotated[float, Above(0)] = 15.0
    """Seconds of silence after which a stream says that it is there."""
    log_prompts: bool = False
    """Whether prompts and answers appear in the log."""
    force_chat: bool = False
    """Whether a base model takes part in conversations."""

    def __post_init__(self) -> None:
        check_bounds("serve", self, [f.name for f in fields(self)])

    @property
    def most_answers(self) -> int:
        """That can be open at a time."""
        return self.max_requests + self.queue
