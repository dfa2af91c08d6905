"""What a user may set of the answers, by the names that the command line and the chat's commands share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from megatron_iberis.config.checks import require
from megatron_iberis.config.overrides import Text, convert, shown
from megatron_iberis.errors import InputError
from megatron_iberis.inference.sampling import Sampling

CHAT = Sampling(temperature=0.6, top_k=50)

_NUMBERS = {
    "temperature": float,
    "top_k": int,
    "top_p": float,
    "min_p": float,
    "repetition_penalty": float,
    "presence_penalty": float,
    "frequency_penalty": float,
    "seed": int,
}
NAMES = (*_NUMBERS, "tokens", "truncate")


@dataclass(frozen=True)
class Settings:
    """How to answer."""

    sampling: Sampling = CHAT
    tokens: int = 512
    """Of an answer, at most."""
    truncate: str = "off"
    """"left": a conversation that grows too long for the context loses its oldest turns; "off": it is refused."""

    def __post_init__(self) -> None:
        """InputError for what can't be."""
        require(self.tokens >= 1, f"tokens is {self.tokens}: it must be at least 1.")
        require(self.truncate in ("left", "off"), f"truncate is {shown(self.truncate)}: it must be left or off.")

    def with_value(self, name: str, text: str) -> Settings:
        """The same with one setting changed, by its name with - or _. InputError for a value that can't be."""
        name = name.replace("-", "_")
        if name == "truncate":
            return replace(self, truncate=text)
        if name == "seed" and text == "none":
            return replace(self, sampling=replace(self.sampling, seed=None))
        value = convert(name, Text(text), _NUMBERS.get(name, int))
        if name == "tokens":
            return replace(self, tokens=value)
        try:
            changed: Mapping[str, float] = {name: value}
            return replace(self, sampling=replace(self.sampling, **changed))  # type: ignore[arg-type]
        except InputError as error:
            raise InputError(str(error).removeprefix("sampling.")) from None

    def value(self, name: str) -> str:
        """A setting as text that `with_value` takes."""
        name = name.replace("-", "_")
        found = getattr(self, name) if name in ("tokens", "truncate") else getattr(self.sampling, name)
        return "none" if found is None else f"{found:g}" if isinstance(found, float) else str(found)
