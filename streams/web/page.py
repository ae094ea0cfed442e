"""The page for people: one self-contained document. Style and script are inline and named by their hash in the policy."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from importlib.resources import files

from aiohttp import web


class Page:
    """The page's document, put together once from the files in ``static``."""

    def __init__(self) -> None:
        static = files("streams.web") / "static"
        style, script = ((static / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
        document = (static / "page.html").read_text(encoding="utf-8")
        self._body = document.replace("/*STYLE*/", style).replace("/*SCRIPT*/", script).encode()
        sources = f"script-src {_source(script)}; style-src {_source(style)}; connect-src 'self'; img-src data:"
        self._policy = f"default-src 'none'; {sources}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

    def response(self, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
        """Return the page. It holds nothing of the system, so it may be shown to those who still have to give a token."""
        return web.Response(status=status, body=self._body, content_type="text/html", charset="utf-8", headers={**(headers or {}), "Content-Security-Policy": self._policy})


def _source(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
