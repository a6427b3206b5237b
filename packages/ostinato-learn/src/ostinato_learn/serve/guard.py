"""`Guard`: the checks before every route.

Addresses and tokens are checked, and the body is read, within its bounds of size and time, before
a route sees the request. An error of a route becomes an answer here, and a line of the log.
"""

from __future__ import annotations

import asyncio
import gzip
import hmac
import io
import logging
import sys
import time
import zlib
from collections.abc import Coroutine
from typing import Any
from urllib.parse import parse_qs, urlsplit

from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ostinato_learn.serve.metrics import Metrics
from ostinato_learn.serve.refused import BODY, Refusal
from ostinato_learn.serve.settings import Settings

_log = logging.getLogger(__name__)
LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
AT_ONCE = 4  # bodies of the largest size in memory at the same time
BODY_TIMEOUT = 2.0  # seconds in which the rest of a body that is too large may come
OPEN = ("/v2/health/live", "/v2/health/ready")  # for probes: without a token, with any Host


class Guard:
    """An ASGI application that checks requests before another one answers them.

    Args:
        app: the routes.
        settings, metrics: those of the server.

    Attributes:
        ending: whether the server is shutting down; it then answers requests by 503.
    """

    def __init__(self, app: ASGIApp, settings: Settings, metrics: Metrics):
        self._app, self._settings, self._metrics = app, settings, metrics
        self._tokens = [token.encode() for token in settings.tokens]
        self._bytes = 0  # of bodies in memory
        self.ending = False
        self.under_way = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await _Exchange(self, scope, receive, send).run()
        elif scope["type"] == "websocket":
            try:
                self.check(scope, _headers(scope))
            except Refusal as problem:
                await send({"type": "websocket.close", "code": 1008, "reason": problem.message})
                return
            await self._app(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def check(self, scope: Scope, headers: dict[str, str]) -> None:
        """Raise Refusal if the Host, the Origin or the token of the request is not accepted."""
        host = headers.get("host", "")
        if scope["path"] not in OPEN:
            self._check_host(host)
        origin = headers.get("origin")
        if origin is not None and origin not in self._settings.origins:
            same = urlsplit(origin).netloc
            if not same or same.lower() != host.lower():
                raise Refusal(
                    403, f"the page of {origin[:100]!r} may not use this server (--allow-origin)"
                )
        if self._tokens and scope["path"] not in OPEN and not scope["path"].startswith("/page/"):
            self._check_token(scope, headers)

    def _check_host(self, host: str) -> None:
        name = host.rpartition(":")[0] if not host.endswith("]") and ":" in host else host
        allowed = {*LOOPBACK, *self._settings.hosts}
        if self._tokens and not self._settings.hosts:
            return  # any Host: a page of another origin does not know the token
        if name.lower() not in allowed:
            raise Refusal(
                403,
                f"the Host header is {host[:100]!r}; wanted {', '.join(sorted(allowed))} "
                "(--allow-host)",
            )

    def _check_token(self, scope: Scope, headers: dict[str, str]) -> None:
        kind, _, token = headers.get("authorization", "").partition(" ")
        if scope["type"] == "websocket" and not token:  # a browser cannot send the header
            query = parse_qs(scope["query_string"].decode("latin-1"))
            kind, token = "bearer", query.get("token", [""])[0]
        given = token.strip().encode("latin-1", "replace")
        equal = [hmac.compare_digest(given, wanted) for wanted in self._tokens]
        if scope["path"] == "/" and scope["method"] == "GET":
            return  # the page itself asks for the token
        if kind.lower() != "bearer" or not any(equal):
            raise Refusal(401, "wanted the header Authorization: Bearer TOKEN, with a valid token")


class _Exchange:
    """One request and its answer."""

    def __init__(self, guard: Guard, scope: Scope, receive: Receive, send: Send):
        self.guard, self.settings = guard, guard._settings
        self.scope, self.receive, self.send = scope, receive, send
        self.status, self.sent, self.began = 0, 0, time.perf_counter()
        self.held = 0  # bytes of the body
        self.headers = _headers(scope)

    async def run(self) -> None:
        self.guard.under_way += 1
        try:
            await self._answer()
        except Refusal as problem:
            if problem.status == 413:
                await self._drain()
            await self._error(problem)
        except _Gone:
            self.status = 499
        except Exception:
            _log.exception("%s %s failed", self.scope["method"], self.scope["path"][:200])
            await self._error(Refusal(500, "the server failed; its log has the reason"))
        finally:
            self.guard.under_way -= 1
            self.guard._bytes -= self.held
            self._write_line()

    async def _answer(self) -> None:
        self.guard.check(self.scope, self.headers)
        if self.guard.under_way > self.settings.connections:
            raise Refusal(503, f"{self.guard.under_way:,} requests are under way; try again", 1)
        if self.guard.ending and self.scope["path"] != OPEN[0]:
            raise Refusal(503, "the server is ending; ask the next one", 1)
        body = await self._in_time(self._body(), self.settings.timeout)
        if body is None:
            seconds = f"{self.settings.timeout:g} seconds"
            raise Refusal(408, f"the body did not arrive in {seconds} (--timeout)")
        self.scope[BODY] = body
        await self.guard._app(self.scope, self.receive, self._send)

    async def _in_time(self, work: Coroutine[Any, Any, bytes], seconds: float) -> bytes | None:
        """The result of a coroutine; None if it takes longer.

        `asyncio.wait_for` would need a task, which costs as much time as the rest of a request.
        """
        task, late = asyncio.current_task(), False
        assert task is not None

        def stop() -> None:
            nonlocal late
            late = True
            task.cancel()

        timer = asyncio.get_running_loop().call_later(seconds, stop)
        try:
            return await work
        except asyncio.CancelledError:
            if not late:
                raise
            return None
        finally:
            timer.cancel()

    async def _drain(self) -> None:
        """Read and discard the rest of a body.

        Without this a client that is still sending sees a closed connection instead of the answer.
        """

        async def rest() -> bytes:
            while (await self.receive()).get("more_body"):
                pass
            return b""

        await self._in_time(rest(), BODY_TIMEOUT)

    async def _body(self) -> bytes:
        length = self.headers.get("content-length", "")
        if length.isdigit() and int(length[:18]) > self.settings.body:
            raise self._too_large()
        pieces: list[bytes] = []
        while True:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                raise _Gone
            piece = message.get("body", b"")
            self._hold(len(piece))
            pieces.append(piece)
            if not message.get("more_body"):
                break
        body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        coding = self.headers.get("content-encoding", "identity")
        return body if coding == "identity" else self._unpacked(body, coding)

    def _hold(self, n: int) -> None:
        self.held += n
        self.guard._bytes += n
        if self.held > self.settings.body:
            raise self._too_large()
        if self.guard._bytes > AT_ONCE * self.settings.body:
            raise Refusal(503, "too many large requests at the same time; try again", 1)

    def _too_large(self) -> Refusal:
        return Refusal(
            413, f"the body has more than {self.settings.body:,} bytes, which is the most (--body)"
        )

    def _unpacked(self, body: bytes, coding: str) -> bytes:
        try:
            if coding == "gzip":
                found = gzip.GzipFile(fileobj=io.BytesIO(body)).read(self.settings.body + 1)
            elif coding == "deflate":
                found = zlib.decompressobj().decompress(body, self.settings.body + 1)
            else:
                raise Refusal(415, f"Content-Encoding is {coding[:40]!r}; wanted gzip or deflate")
        except (OSError, EOFError, zlib.error) as problem:
            raise Refusal(400, f"the body is not packed by {coding}: {problem}") from None
        self._hold(len(found))
        return found

    async def _send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
        else:
            self.sent += len(message.get("body", b""))
        await self.send(message)

    async def _error(self, problem: Refusal) -> None:
        if not self.status:  # else part of an answer has been sent: it stays incomplete
            await answer_of(problem)(self.scope, self.receive, self._send)

    def _write_line(self) -> None:
        seconds = time.perf_counter() - self.began
        endpoint: Any = self.scope.get("endpoint")
        route = getattr(endpoint, "__name__", "none")
        self.guard._metrics.answered(route, self.status, seconds)
        if self.settings.access_log:
            client = (self.scope.get("client") or ("-",))[0]
            path = self.scope["path"][:200].encode("unicode_escape").decode()
            print(
                f"{client} {self.scope['method']} {path} {self.status} {self.sent}B "
                f"{1000 * seconds:.1f}ms",
                file=sys.stderr,
            )


class _Gone(Exception):  # noqa: N818
    """The client closed the connection before its request was whole."""


def answer_of(problem: Refusal) -> Response:
    """The answer to a request that is refused."""
    headers = dict(problem.headers)
    if problem.status in (408, 413):
        headers["connection"] = "close"  # the rest of the body is not read
    return JSONResponse({"error": problem.message}, problem.status, headers)


def _headers(scope: Scope) -> dict[str, str]:
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
