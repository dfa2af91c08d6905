"""A server on this machine is used by whom it is for."""

from __future__ import annotations

import argparse
import logging
import re
import socket
from collections.abc import Iterator
from contextlib import closing

import pytest

from megatron_iberis.cli import main
from megatron_iberis.serving.api.commands import _settings
from megatron_iberis.serving.api.security import host_of
from megatron_iberis.serving.api.server import check_exposure
from megatron_iberis.serving.api.settings import Settings
from tests.support.server import Running, opener, serving, tiny_model

CHAT = "/v1/chat/completions"
HI = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 2}
SITE = "https://chat.example"


@pytest.fixture(scope="module")
def locked() -> Iterator[Running]:
    """With a key, a site whose pages may ask, and a body limit of 1,000 bytes."""
    settings = Settings("tiny", key="sésame", origins=(SITE,), body_limit=1000)
    with serving(opener(tiny_model()), settings) as running:
        yield running


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "LOCALHOST:8000", "127.0.0.1:9", "[::1]", "[::1]:8000"])
def test_a_known_host_is_answered(server: Running, host: str) -> None:
    assert server.ask("GET", "/health", headers={"Host": host})[0] == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "localhost.evil.example", "192.168.1.5", ""],
)
def test_an_unknown_host_is_refused_before_anything_else(server: Running, host: str) -> None:
    """DNS rebinding: a page of a foreign site whose name points here sends that name."""
    for method, path, body in (("GET", "/", None), ("GET", "/health", None), ("POST", CHAT, HI)):
        status, _, told = server.ask(method, path, body, {"Host": host})
        assert status == 403
        assert told["error"]["type"] == "permission_error"


def test_two_hosts_are_none(server: Running) -> None:
    with closing(socket.create_connection(("127.0.0.1", server.port), timeout=10)) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n")
        assert connection.recv(4096).split()[1] in (b"400", b"403")


def test_hosts_are_told_apart_from_ports() -> None:
    assert host_of("Example.COM.:80") == "example.com"
    assert host_of("[::1]:80") == "::1"
    assert host_of("a:b") == host_of("::1") == host_of("[::1") == host_of("a b:1:2") == ""


def test_what_a_server_is_asked_by_is_said_at_its_start() -> None:
    def settings(host: str, *allowed: str) -> Settings:
        given = {"host": host, "allowed_host": allowed, "model_name": "tiny", "api_key": "k", "cors_origin": []}
        rest = {"max_requests": 1, "queue": 1, "time_limit": 1, "log_prompts": False, "force_chat": False}
        return _settings(argparse.Namespace(**given, **rest))

    assert settings("127.0.0.1").hosts == {"127.0.0.1", "localhost", "::1"}
    assert "model.lan" in settings("127.0.0.1", "Model.LAN").hosts
    assert "192.168.1.5" in settings("192.168.1.5").hosts
    assert not settings("192.168.1.5").any_address
    assert settings("0.0.0.0").any_address


def test_a_server_on_all_addresses_knows_numeric_ones_alone() -> None:
    with serving(opener(tiny_model()), Settings("tiny", any_address=True)) as server:
        for host, status in (
            ("192.168.1.5:8000", 200),
            ("[fe80::1]", 200),
            ("evil.example", 403),
            ("1.evil.ex", 403),
        ):
            assert server.ask("GET", "/health", headers={"Host": host})[0] == status


def test_every_path_but_the_open_ones_wants_the_key(locked: Running) -> None:
    for path in ("/health", "/docs", "/openapi.json"):
        assert locked.ask("GET", path)[0] == 200
    for given in ({}, {"Authorization": "Bearer sesame"}, {"Authorization": "Bearer"}, {"Authorization": "Basic x"}):
        for method, path, body in (("POST", CHAT, HI), ("GET", "/v1/models", None), ("GET", "/metrics", None)):
            status, headers, told = locked.ask(method, path, body, given)
            assert (status, headers["www-authenticate"]) == (401, "Bearer")
            assert (told["error"]["type"], told["error"]["code"]) == ("authentication_error", "invalid_api_key")
    right = {"Authorization": "Bearer sésame".encode().decode("latin-1")}
    assert locked.ask("POST", CHAT, HI, right)[0] == 200
    assert locked.ask("GET", "/v1/models", headers=right)[0] == 200
    assert locked.ask("GET", "/v1/nothing")[0] == 401, "who has no key learns nothing"


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
def test_only_json_is_taken(server: Running, kind: str) -> None:
    """A form of a foreign site can't send it without being asked whether it may."""
    status, _, body = server.ask("POST", CHAT, HI, {"Content-Type": kind})
    assert (status, "application/json" in body["error"]["message"]) == (415, True)
    assert server.ask("POST", CHAT, HI, {"Content-Type": "application/json; charset=utf-8"})[0] == 200


def test_a_body_beyond_the_limit_is_refused_unread(locked: Running) -> None:
    right = {"Authorization": "Bearer sésame".encode().decode("latin-1")}
    status, _, body = locked.ask("POST", CHAT, b" " * 1001, right)
    assert (status, "1,000 bytes" in body["error"]["message"]) == (413, True)


def test_no_other_site_may_ask_unless_it_was_named(server: Running, locked: Running) -> None:
    preflight = {"Origin": SITE, "Access-Control-Request-Method": "POST"}
    preflight["Access-Control-Request-Headers"] = "content-type,authorization"
    for asked, headers in ((server, preflight), (locked, {**preflight, "Origin": "https://evil.example"})):
        assert "access-control-allow-origin" not in asked.ask("OPTIONS", CHAT, headers=headers)[1]
    status, headers, _ = locked.ask("OPTIONS", CHAT, headers=preflight)
    assert (status, headers["access-control-allow-origin"]) == (200, SITE)
    assert "access-control-allow-credentials" not in headers
    refused = locked.ask("POST", CHAT, HI, {"Origin": SITE})
    assert (refused[0], refused[1]["access-control-allow-origin"]) == (401, SITE)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7"])
def test_other_machines_are_let_in_only_with_a_key_or_on_demand(
    host: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("IBERIS_API_KEY", raising=False)
    assert main(["serve", "--checkpoint", "nowhere", "--host", host]) == 2
    told = capsys.readouterr().err
    assert told.startswith(f"error: --host {host} lets other machines in")
    assert "--api-key" in told
    assert told.count("\n") == 1
    check_exposure(host, "key", False)
    check_exposure(host, "", True)


def test_loopback_needs_no_key() -> None:
    for host in ("127.0.0.1", "localhost", "127.1.2.3"):
        check_exposure(host, "", False)


def test_the_log_holds_no_prompt_unless_asked(server: Running, caplog: pytest.LogCaptureFixture) -> None:
    secret = {"messages": [{"role": "user", "content": "walnut"}], "max_tokens": 2}
    caplog.set_level(logging.DEBUG)
    server.ask("POST", CHAT, secret, {"X-Request-Id": "mine-8"})
    server.ask("POST", CHAT, {**secret, "temperature": "walnut"})
    server.wait_until(lambda: "mine-8" in caplog.text)
    assert "walnut" not in caplog.text
    with serving(opener(tiny_model()), Settings("tiny", log_prompts=True)) as open_hearted:
        open_hearted.ask("POST", CHAT, secret)
        open_hearted.wait_until(lambda: "walnut" in caplog.text)


def test_nothing_on_the_docs_page_is_from_another_host(server: Running) -> None:
    _, headers, page = server.ask("GET", "/docs")
    assert "default-src 'none'" in headers["content-security-policy"]
    text = page.decode()
    assert "<script" not in text
    assert "http" not in text
    for word in ("/v1/chat/completions", "max_completion_tokens", "repetition_penalty", "/health"):
        assert word in text


def test_the_page_and_its_headers_share_a_nonce_that_is_new_each_time(server: Running) -> None:
    nonces = set()
    for _ in range(2):
        status, headers, body = server.ask("GET", "/")
        assert (status, headers["content-type"]) == (200, "text/html; charset=utf-8")
        found = re.search(r"script-src 'nonce-([\w-]{20,})'", headers["content-security-policy"])
        assert found, headers
        assert f'<script nonce="{found[1]}">' in body.decode()
        nonces.add(found[1])
    assert len(nonces) == 2
