"""What happens to every request before and after it is answered: key, size, headers, one line of log, metrics."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import logging
import time
import uuid
from collections.abc import Callable

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from clip_har.photo_page import SCRIPTS
from clip_har.serving.limits import Limits
from clip_har.serving.problems import ProblemError

OPEN = frozenset(
    {"/", "/page.css", "/page.js", *(f"/{name}" for name in SCRIPTS), "/healthz", "/readyz", "/openapi.json"}
)
"""Paths that need no key: the page, which asks for it, and what a load balancer looks at."""
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
    "Cache-Control": "no-store",
}
DISCONNECTED = 499
"""Logged where the client has gone before it was answered."""
LINGER_SECONDS = 2.0
LINGER_BYTES = 64 * 2**20
"""What is still read of an upload after its refusal. A connection that is closed with bytes unread is reset, and the
reset can overtake the answer."""


class Gate:
    """ASGI middleware.

    Args:
        key: what requests must send; None lets everyone in.
        observed: called with path, status and seconds of each request.
        known: paths that are counted one by one; others are counted together.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        limits: Limits,
        key: str | None,
        observed: Callable[[str, int, float], None],
        known: Callable[[], frozenset[str]],
        log: logging.Logger,
    ) -> None:
        self._app = app
        self._limits = limits
        self._key = None if key is None else key.encode()
        self._observed = observed
        self._known = known
        self._log = log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = _Exchange(receive, send, self._limits, waits="expect" in Headers(scope=scope))
        scope.setdefault("state", {})["facts"] = exchange.facts
        try:
            self._admit(scope)
            await self._app(scope, exchange.receive, exchange.send)
        except ProblemError as problem:
            await exchange.answer(problem, scope)
        except Exception:
            self._log.exception("failed", extra={"facts": {"request": exchange.identity}})
            await exchange.answer(ProblemError(500, "The service made an error. Its log has the details."), scope)
        self._note(scope, exchange)

    def _admit(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        if self._key is not None and scope["path"] not in OPEN:
            kind, _, given = headers.get("authorization", "").partition(" ")
            if kind.lower() != "bearer":
                given = headers.get("x-api-key", "")
            if not hmac.compare_digest(given.strip().encode(), self._key):
                raise ProblemError(
                    401,
                    'The API key is missing or wrong. Send it as "Authorization: Bearer KEY".',
                    headers={"WWW-Authenticate": "Bearer"},
                )
        length = headers.get("content-length", "0")
        if length.isdecimal():
            self._limits.check_length(int(length))

    def _note(self, scope: Scope, exchange: _Exchange) -> None:
        seconds = (exchange.answered or time.monotonic()) - exchange.begun
        path = scope["path"] if scope["path"] in self._known() else "other"
        status = exchange.status or DISCONNECTED
        self._observed(path, status, seconds)
        facts = {"request": exchange.identity, "method": scope["method"], "path": path, "status": status}
        facts |= {"seconds": round(seconds, 4), "bytes": exchange.received, **exchange.facts}
        level = logging.DEBUG if path in ("/healthz", "/readyz", "/metrics") else logging.INFO
        self._log.log(level, "request", extra={"facts": facts})


class _Exchange:
    """One request and its answer.

    Args:
        waits: the client sends its body only after a 100 Continue, which the first call of `receive` makes.
    """

    def __init__(self, receive: Receive, send: Send, limits: Limits, *, waits: bool = False) -> None:
        self._receive, self._send = receive, send
        self._limits = limits
        self._waits = waits
        self.begun = time.monotonic()
        self.answered: float | None = None
        self.identity = uuid.uuid4().hex[:16]
        self.received = 0
        self.status = 0
        self.facts: dict[str, object] = {}
        """What the answering code adds to the log: counts and names of models, nothing of the images."""
        self._complete = False
        self._closes = False

    async def receive(self) -> Message:
        self._waits = False
        message = await self._next()
        self._limits.check_length(self.received)
        return message

    async def _next(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request":
            self.received += len(message.get("body", b""))
            self._complete = not message.get("more_body", False)
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers.setdefault(name, value)
            headers["X-Request-ID"] = self.identity
            if not self._complete and self.status in (401, 408, 413, 429):
                headers["Connection"] = "close"
                self._closes = not self._waits
        elif self._closes and not message.get("more_body", False):
            await self._send({**message, "more_body": True})
            self.answered = time.monotonic()
            await self._linger()
            message = {"type": "http.response.body", "body": b"", "more_body": False}
        await self._send(message)

    async def _linger(self) -> None:
        """Read and forget what is on its way of an upload that has its answer."""
        most = self.received + LINGER_BYTES
        with contextlib.suppress(TimeoutError, asyncio.TimeoutError):
            await asyncio.wait_for(self._forget(most), LINGER_SECONDS)

    async def _forget(self, most: int) -> None:
        while not self._complete and self.received < most:
            if (await self._next())["type"] != "http.request":
                return

    async def answer(self, problem: ProblemError, scope: Scope) -> None:
        """Send a problem, unless an answer has begun."""
        if not self.status:
            await problem.response()(scope, self._receive, self.send)
