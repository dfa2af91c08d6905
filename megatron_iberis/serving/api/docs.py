"""GET /docs: /openapi.json as one page to read. It needs no script, and nothing from another host."""

from __future__ import annotations

import html
import json
from collections.abc import Iterator, Mapping
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import HTMLResponse, Response

_STYLE = """
:root { color-scheme: light dark }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
code { font: 14px ui-monospace, monospace } table { border-collapse: collapse } h2 { margin-top: 2rem }
td, th { padding: .15rem .8rem .15rem 0; text-align: left; vertical-align: top }
"""
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; "
    "base-uri 'none'; form-action 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}

router = APIRouter()


@router.get("/docs", response_class=HTMLResponse)
async def docs(request: Request) -> Response:
    """This page."""
    return HTMLResponse(page(request.app.openapi()), headers=_HEADERS)


def page(document: Mapping[str, Any]) -> str:
    """HTML of an OpenAPI document."""
    schemas = document.get("components", {}).get("schemas", {})
    parts = [f"<h1>{_text(document['info']['title'])} {_text(document['info']['version'])}</h1>"]
    parts.append(f"<p>{_text(document['info'].get('description', ''))}</p>")
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            parts.append(f"<h2><code>{method.upper()} {_text(path)}</code></h2>")
            parts.append(f"<p>{_text(operation.get('description', ''))}</p>")
            body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
            parts += _fields("the request", body, schemas)
            for status, response in operation["responses"].items():
                if status.startswith("2"):
                    answer = response.get("content", {}).get("application/json", {}).get("schema", {})
                    parts += _fields("the answer", answer, schemas)
    title = _text(document["info"]["title"])
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style>{"".join(parts)}</html>'
    )


def _fields(what: str, schema: Mapping[str, Any], schemas: Mapping[str, Any]) -> Iterator[str]:
    name = schema.get("$ref", "").rpartition("/")[2]
    found = schemas.get(name)
    if not found:
        return
    yield f"<h3>{_text(name)}: {what}</h3><p>{_text(found.get('description', ''))}</p><table>"
    for field, of in found.get("properties", {}).items():
        required = "" if field in found.get("required", ()) else "?"
        yield f"<tr><td><code>{_text(field)}{required}</code><td><code>{_text(_kind(of))}</code>"
        yield f"<td>{_text(of.get('description', ''))}"
    yield "</table>"


def _kind(schema: Mapping[str, Any]) -> str:
    if "anyOf" in schema:
        return " | ".join(dict.fromkeys(map(_kind, schema["anyOf"])))
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if "const" in schema or "enum" in schema:
        return " | ".join(json.dumps(value) for value in schema.get("enum", [schema.get("const")]))
    if schema.get("type") == "array":
        return f"[{_kind(schema.get('items', {}))}]"
    return str(schema.get("type", "any"))


def _text(text: str) -> str:
    return html.escape(" ".join(text.split()))
