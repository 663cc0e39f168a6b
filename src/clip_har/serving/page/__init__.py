"""The page at /: a template, a style sheet and scripts, sent from here. Nothing comes from elsewhere."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

from fastapi import FastAPI
from starlette.responses import Response

from clip_har.photo_page import scripts, style_sheet

_HERE = Path(__file__).parent


def add_page(app: FastAPI) -> None:
    """Add the page's paths to an application."""
    contents = {
        "/": ("text/html", (_HERE / "index.html").read_text(encoding="utf-8")),
        "/page.css": ("text/css", style_sheet((_HERE / "page.css").read_text(encoding="utf-8"))),
        "/page.js": ("text/javascript", (_HERE / "page.js").read_text(encoding="utf-8")),
    }
    contents |= {f"/{name}": ("text/javascript", content) for name, content in scripts().items()}
    for path, (kind, content) in contents.items():
        app.add_api_route(path, _sender(kind, content), methods=["GET"], include_in_schema=False)


def _sender(kind: str, content: str) -> Callable[[], Awaitable[Response]]:
    async def send() -> Response:
        return Response(content, media_type=kind)

    return send
