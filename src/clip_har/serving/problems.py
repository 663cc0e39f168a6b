"""What is wrong with a request, as application/problem+json (RFC 9457): a status, a title and a plain sentence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.responses import JSONResponse

TITLES = {
    400: "Bad request",
    401: "API key required",
    404: "Not found",
    405: "Method not allowed",
    408: "Request too slow",
    413: "Request too large",
    415: "Unsupported content type",
    422: "Request cannot be processed",
    429: "Too many requests",
    500: "Internal error",
    503: "Temporarily unavailable",
    504: "Time limit exceeded",
}


class ProblemError(Exception):
    """A request that is refused or cannot be answered.

    Args:
        status: HTTP status.
        detail: what is wrong, and what to do about it, as plain sentences.
        headers: of the response.
        more: further members of the response's body.
    """

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        headers: Mapping[str, str] | None = None,
        more: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = dict(headers or {})
        self.more = dict(more or {})

    def response(self) -> JSONResponse:
        """The answer that says so."""
        content = {"type": "about:blank", "title": TITLES.get(self.status, "Error"), "status": self.status}
        content |= {"detail": self.detail, **self.more}
        return JSONResponse(content, self.status, self.headers, media_type="application/problem+json")
