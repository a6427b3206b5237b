"""A running server: sockets, signals, and its periodic work.

SIGTERM, Ctrl-C   the server answers the open requests, writes the last snapshots and ends
SIGHUP            the server loads all models anew
"""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from ostinato_learn.serve.app import application
from ostinato_learn.serve.guard import BODY_TIMEOUT, Guard
from ostinato_learn.serve.metrics import Metrics
from ostinato_learn.serve.models import Models
from ostinato_learn.serve.page import Shown
from ostinato_learn.serve.refused import Refusal
from ostinato_learn.serve.settings import Settings

_log = logging.getLogger(__name__)
HEAD = 1 << 16  # bytes of a request's head, at most
IDLE_CHECK = 1.0  # seconds between two checks for idle sequences, each with a flush of the journals
WINDOW = 32  # frames of a WebSocket that wait
MESSAGE = 1 << 22  # bytes of a WebSocket's message, at most
GC_THRESHOLD = 10_000  # new objects between two collections, some MB; Python has 700
# Seconds until a thread that waits for Python's lock gets it: a round that was played beside the
# event loop hands its answers back; by Python's default it waits for 5 ms.
SWITCH_S = 0.0005
IDLE = 75  # seconds that a connection is kept between two requests


def serve(
    directories: dict[str, Path],
    settings: Settings,
    started: Callable[[str], None],
    shown: dict[str, Shown] | None = None,
) -> None:
    """Serve models until a signal comes.

    Args:
        directories: the directories of the models, by their names in the addresses.
        settings: the bounds.
        started: is called with the address when requests can come.
        shown: the data that the page shows, by the names of the models.

    Raises:
        ValueError: a model or a journal cannot be read.
        OSError: the server cannot listen at the address, as when another one does.
    """
    metrics = Metrics()
    with listening(settings) as sockets:
        models = Models(directories, settings, metrics)
        guard = application(models, settings, metrics, shown)
        with _short_pauses():
            asyncio.run(_run(models, guard, sockets, started))


@contextmanager
def _short_pauses() -> Iterator[None]:
    """Keep Python's garbage collector and its lock from long pauses while requests are answered.

    The objects of the imported modules, some 60,000, are set aside: else a collection of the oldest
    generation, about one a second under load, looks at all of them for 10 to 50 ms.
    """
    thresholds = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD, *thresholds[1:])
    interval = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_S)
    try:
        yield
    finally:
        sys.setswitchinterval(interval)
        gc.set_threshold(*thresholds)
        gc.unfreeze()


async def _run(
    models: Models, guard: Guard, sockets: socket.socket, started: Callable[[str], None]
) -> None:
    settings = models.settings
    config = uvicorn.Config(
        guard,
        http=bounded(settings.timeout),
        log_config=None,
        access_log=False,
        lifespan="off",
        server_header=False,
        timeout_graceful_shutdown=max(1, round(settings.timeout)),
        limit_concurrency=2 * settings.connections,
        timeout_keep_alive=IDLE,
        ws_max_size=MESSAGE,
        ws_max_queue=WINDOW,
    )
    server = _Server(config, models, guard)
    models.start()
    tending = asyncio.create_task(_tend(models))
    try:
        host, port = sockets.getsockname()[:2]
        shown = f"[{host}]" if ":" in host else host
        started(f"http://{shown}:{port}")
        await server.serve(sockets=[sockets])
    finally:
        tending.cancel()
        await asyncio.gather(tending, return_exceptions=True)
        await models.close()


async def _tend(models: Models) -> None:
    loop = asyncio.get_running_loop()
    last = loop.time()
    while True:
        await asyncio.sleep(IDLE_CHECK)
        try:
            await models.tend()
            due = loop.time() - last >= models.settings.snapshot_every
            await models.snapshot(due_only=not due)
            last = loop.time() if due else last
        except (Refusal, OSError) as problem:
            _log.warning("idle sequences were not ended: %s", problem)
        except Exception:
            _log.exception("idle sequences were not looked for")


class _Server(uvicorn.Server):
    """uvicorn's server, with other actions at signals."""

    def __init__(self, config: uvicorn.Config, models: Models, guard: Guard):
        super().__init__(config)
        self._models, self._guard = models, guard
        self._reloading: asyncio.Task[None] | None = None

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._end)
        loop.add_signal_handler(signal.SIGHUP, self._reload)
        try:
            yield
        finally:
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                loop.remove_signal_handler(number)

    def _end(self) -> None:
        self._guard.ending = self.should_exit = True
        for _, _, sequences in self._models.sequences:
            sequences.listeners.end_all()

    def _reload(self) -> None:
        self._reloading = asyncio.create_task(self._load_all())

    async def _load_all(self) -> None:
        for name in self._models.names:
            try:
                version = await self._models.reload(name)
                _log.warning("%s has version %s", name, version.served.version)
            except Refusal as problem:
                _log.warning("%s", problem.message)


def bounded(timeout: float) -> type[HttpToolsProtocol]:
    """uvicorn's HTTP with bounds on the size of a head and on the time in which it arrives."""

    class Bounded(HttpToolsProtocol):
        _head: int | None = 0  # bytes of a head that is not whole yet
        _timer: asyncio.TimerHandle | None = None
        _refused = False

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._await_head()

        def data_received(self, data: bytes) -> None:
            if self._refused:
                return
            if self._head is not None:
                self._head += len(data)
            super().data_received(data)
            if self._head is not None and self._head > HEAD and not self.transport.is_closing():
                self._refuse(b"431 Request Header Fields Too Large")

        def on_message_begin(self) -> None:
            self._await_head()
            super().on_message_begin()

        def on_headers_complete(self) -> None:
            self._head = None
            if self._timer is not None:
                self._timer.cancel()
            super().on_headers_complete()

        def connection_lost(self, exc: Exception | None) -> None:
            if self._timer is not None:
                self._timer.cancel()
            super().connection_lost(exc)

        def _await_head(self) -> None:
            self._head = 0
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self.loop.call_later(timeout, self._too_slow)

        def _too_slow(self) -> None:
            if not self.transport.is_closing() and not self._refused:
                self._refuse(b"408 Request Timeout")

        def _refuse(self, status: bytes) -> None:
            body = b'{"error": "the head of the request is too long, or came too slowly"}'
            head = b"HTTP/1.1 %s\r\ncontent-type: application/json\r\ncontent-length: %d\r\n"
            self.transport.write(head % (status, len(body)) + b"connection: close\r\n\r\n" + body)
            self.transport.write_eof()
            # Closed at once, the connection would be cut before the client has read the answer.
            self._refused = True
            self._timer = self.loop.call_later(BODY_TIMEOUT, self.transport.close)

    return Bounded


def listening(settings: Settings) -> socket.socket:
    """A socket at which requests wait from now on.

    Raises:
        OSError: the server cannot listen at the address, which the error names.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    # asyncio sets TCP_NODELAY only if the protocol is given; without it answers wait for 40 ms.
    found = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind((settings.host, settings.port))
        found.listen(2048)
    except OSError as problem:
        found.close()
        problem.filename = f"{settings.host}:{settings.port}"
        raise
    return found
