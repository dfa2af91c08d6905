"""A server of a tiny chat model for the session, clients of it, and a say in what the model answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import openai
import pytest

from megatron_iberis.inference.engine import Engine
from megatron_iberis.inference.requests import Request
from megatron_iberis.inference.sampling import Choice
from megatron_iberis.tokenizer import SPECIALS, Tokenizer
from tests.support.server import Running, opener, serving, tiny_model
from tests.support.tokenizers import small_tokenizer

Say = Callable[..., None]


@pytest.fixture(scope="session")
def server() -> Iterator[Running]:
    with serving(opener(tiny_model(), max_requests=64)) as running:
        yield running


@pytest.fixture(autouse=True)
def _nothing_is_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """After every test all slots of the session's server are free."""
    yield
    if "server" in request.fixturenames:
        request.getfixturevalue("server").wait_for_idle()


@pytest.fixture(scope="session")
def client(server: Running) -> openai.OpenAI:
    return openai.OpenAI(base_url=server.base_url, api_key="none", max_retries=0, timeout=30)


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return small_tokenizer()


@pytest.fixture
def say(monkeypatch: pytest.MonkeyPatch, tokenizer: Tokenizer) -> Say:
    """say(answer, ...): what the samples of each prompt are to be, in lists of texts, specials' names and ids."""

    def ids(parts: Sequence[str | int]) -> list[int]:
        found = list[int]()
        for part in parts:
            special = isinstance(part, str) and part in SPECIALS
            found += (
                [part] if isinstance(part, int) else [tokenizer.specials[part]] if special else tokenizer.encode(part)
            )
        return found

    def script(*answers: Sequence[str | int]) -> None:
        scripts = [ids(answer) for answer in answers]

        def choose(logits, sampling, sample, position, context, generated):  # type: ignore[no-untyped-def]
            script = scripts[sample % len(scripts)]
            token = script[len(generated) % len(script)]
            return Choice(token, -0.5, [(token, -0.5)][: sampling.logprobs])

        monkeypatch.setattr("megatron_iberis.inference.engine.choose", choose)

    return script


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Request]:
    """The requests that the engine gets."""
    requests: list[Request] = []
    submit = Engine.submit

    def seen(*arguments, **named) -> Request:  # type: ignore[no-untyped-def]
        requests.append(submit(*arguments, **named))
        return requests[-1]

    monkeypatch.setattr(Engine, "submit", seen)
    return requests


@pytest.fixture
def bytes_of(tokenizer: Tokenizer) -> Callable[[bytes], list[int]]:
    """The ids that stand for single bytes."""
    of = {tokenizer.decode_bytes([i]): i for i in reversed(range(tokenizer.vocab_size))}
    return lambda content: [of[content[i : i + 1]] for i in range(len(content))]
