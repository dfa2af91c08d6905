"""The web page of `iberis serve`: one document that holds its styles and scripts, and the headers that keep it safe.

* `page(nonce)` is the whole document. Nothing in it comes from another host, and nothing is fetched beside it: every
  style and script stands in it, with the nonce that the Content-Security-Policy of the same answer names.
* `headers_for(nonce)` is that policy and what goes with it.

There is no build step: `page.html`, `style.css` and `scripts/` are what a browser gets, in the order of SCRIPTS. Of
`vendor/`, which is other people's code, vendored.json says versions, licences and hashes.
"""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files

# Runs in the head, before the first paint: a dark page must not flash white.
EARLY_SCRIPTS = ("early.js",)
# In the order in which they use one another.
VENDORED_SCRIPTS = ("marked.umd.js", "purify.min.js", "highlight.min.js")
SCRIPTS = (
    "texts.js",
    "elements.js",
    "settings.js",
    "sse.js",
    "api.js",
    "tree.js",
    "exchange.js",
    "store.js",
    "markdown.js",
    "message_view.js",
    "thread_view.js",
    "answering.js",
    "dialogs.js",
    "sidebar.js",
    "composer.js",
    "server_watch.js",
    "main.js",
)

_NONCE = re.compile(r"[A-Za-z0-9+/_-]{16,}={0,2}")
_SOURCE_MAP = re.compile(r"^//# sourceMappingURL=.*$", re.MULTILINE)
_MARKS = ("<!-- head -->", "<!-- scripts -->")


def page(nonce: str) -> str:
    """The document, its styles and scripts marked with `nonce`.

    The nonce is 16 characters of base64 or more, new for every answer (`secrets.token_urlsafe`): a text that could be
    guessed would let a script in, and one that holds a quote would end the attribute. Anything else is a ValueError.
    """
    _check(nonce)
    before, between, after = _document()
    head = [("style", text) for text in _styles()] + [("script", text) for text in _texts("scripts", EARLY_SCRIPTS)]
    body = [("script", text) for text in _texts("vendor", VENDORED_SCRIPTS) + _texts("scripts", SCRIPTS)]
    return before + _inlined(head, nonce) + between + _inlined(body, nonce) + after


def headers_for(nonce: str) -> dict[str, str]:
    """The headers of an answer that holds `page(nonce)`.

    Only scripts and styles with the nonce run, requests go to this server alone, HTML is never made from a string
    that the sanitiser has not seen (Trusted Types), and a name in a link is not looked up before it is clicked.
    """
    _check(nonce)
    policy = {
        "default-src": "'none'",
        "script-src": f"'nonce-{nonce}'",
        "style-src": f"'nonce-{nonce}'",
        "connect-src": "'self'",
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
        "require-trusted-types-for": "'script'",
        "trusted-types": "dompurify",
    }
    return {
        "Content-Security-Policy": "; ".join(f"{name} {value}" for name, value in policy.items()),
        "Cache-Control": "no-store",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Permissions-Policy": "camera=(), microphone=(), geolocation=(), payment=(), usb=()",
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
        "X-DNS-Prefetch-Control": "off",
        "X-Frame-Options": "DENY",
    }


def _check(nonce: str) -> None:
    if not _NONCE.fullmatch(nonce):
        raise ValueError(
            f"{nonce!r} is no nonce: give 16 characters of base64 or more, such as secrets.token_urlsafe()."
        )


def _inlined(parts: list[tuple[str, str]], nonce: str) -> str:
    return "\n".join(f'<{tag} nonce="{nonce}">\n{text}\n</{tag}>' for tag, text in parts)


@cache
def _document() -> tuple[str, str, str]:
    text = _read("page.html")
    before, _, rest = text.partition(_MARKS[0])
    between, _, after = rest.partition(_MARKS[1])
    return before, between, after


@cache
def _styles() -> tuple[str, ...]:
    return (_read("style.css"), _read("content.css"))


@cache
def _texts(folder: str, names: tuple[str, ...]) -> tuple[str, ...]:
    # A source map would be asked of this server, which has none.
    return tuple(_SOURCE_MAP.sub("", _read(folder, name)).strip() for name in names)


def _read(*path: str) -> str:
    return files(__name__).joinpath(*path).read_text(encoding="utf-8")
