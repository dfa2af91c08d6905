"""/openapi.json: what it says is true, and nothing that can be made of it breaks the server."""

from __future__ import annotations

from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.config import SchemathesisConfig
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.support.server import Running

CHECKS = (not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance)


def explore(server: Running, examples: int) -> int:
    config = SchemathesisConfig()
    schema = schemathesis.openapi.from_url(f"{server.address}/openapi.json", config=config)
    tried = 0
    for found in schema.get_all_operations():
        operation = found.ok()
        for mode in schemathesis.GenerationMode:
            if not operation.body and mode is schemathesis.GenerationMode.NEGATIVE:
                continue

            @settings(
                max_examples=examples,
                deadline=None,
                database=None,
                derandomize=True,
                phases=[Phase.explicit, Phase.generate],
                suppress_health_check=list(HealthCheck),
            )
            def one(case: schemathesis.Case) -> None:
                nonlocal tried
                tried += 1
                if isinstance(case.body, dict):
                    limit(case.body)
                case.call_and_validate(checks=list(CHECKS), timeout=30)

            given(operation.as_strategy(generation_mode=mode))(one)()
    return tried


def limit(body: dict[str, Any]) -> None:
    """So that no example takes long."""
    if body.get("max_tokens") is None:
        body["max_tokens"] = 2
    if isinstance(body.get("n"), int) and body["n"] > 3:
        body["n"] = 3


def test_nothing_that_the_document_allows_breaks_the_server(server: Running) -> None:
    assert explore(server, 12) > 60


@pytest.mark.full
def test_nothing_that_the_document_allows_breaks_the_server_at_length(server: Running) -> None:
    assert explore(server, 500) > 2000
