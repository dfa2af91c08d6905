"""What /metrics tells, in Prometheus's form."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
_STEP_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)


class Metrics:
    """One server's; several in a process keep apart. running, queued: answers, as they are when asked."""

    def __init__(self, running: Callable[[], int], queued: Callable[[], int]) -> None:
        self.registry = CollectorRegistry()
        of = self.registry
        self.responses = Counter("iberis_http_responses", "HTTP answers", ["status"], registry=of)
        self.answers = Counter(
            "iberis_answers",
            "Answers by how they ended: stop, length, cancelled, failed, time, ...",
            ["end"],
            registry=of,
        )
        self.prompt_tokens = Counter("iberis_prompt_tokens", "Tokens of prompts", registry=of)
        self.cached_tokens = Counter("iberis_cached_tokens", "Tokens of prompts that were not run again", registry=of)
        self.answer_tokens = Counter("iberis_answer_tokens", "Tokens of answers", registry=of)
        self.first_token = Histogram(
            "iberis_first_token_seconds", "From a request to its first text", buckets=_SECONDS, registry=of
        )
        self.request = Histogram("iberis_request_seconds", "From a request to its end", buckets=_SECONDS, registry=of)
        self.step = Histogram("iberis_step_seconds", "A step of the engine", buckets=_STEP_SECONDS, registry=of)
        Gauge("iberis_answers_running", "Answers that are being made", registry=of).set_function(running)
        Gauge("iberis_answers_queued", "Answers that wait for their turn", registry=of).set_function(queued)

    def step_done(self, seconds: float, tokens: int) -> None:
        """Of the engine."""
        self.step.observe(seconds)

    def text(self) -> bytes:
        """All of it."""
        return generate_latest(self.registry)
