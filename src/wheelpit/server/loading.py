"""Answer on the bound socket while the model loads, so that nobody takes a slow start for no start.

A thread with a small event loop of its own: the main thread is busy, and the HTTP stack is not
imported yet. It says three things only: alive, not ready, and 503 "loading" to all the rest. `end`
stops it from taking connections; those that come from then on wait in the socket's queue for the
server proper, so that none is refused in between.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus

import msgspec

from wheelpit.server.errors import HEALTHY, UNAVAILABLE, encode_error

MAX_BODY_BYTES = 1 << 20
"""So much of a body is read before it is answered: whoever still sends may not hear the answer."""
CLIENT_TIMEOUT_S = 5.0
RETRY_AFTER_S = 1
LIVE_PATHS = frozenset({"/health/live"})
BARE_PATHS = frozenset({"/health", "/ping"})
READY_PATH = "/health/ready"


class LoadingPage:
    """What is told while the model loads. `phase` is written by the thread that loads."""

    def __init__(self) -> None:
        self.phase = "start"
        """The part of the start that was finished last."""
        self._started_s = time.monotonic()

    def answer(self, path: str) -> bytes:
        """The whole response to a request for this path."""
        if path in LIVE_PATHS:
            return _response(HEALTHY, msgspec.json.encode({"live": True}))
        if path in BARE_PATHS:
            return _response(UNAVAILABLE.status, b"")
        loading_s = round(time.monotonic() - self._started_s, 1)
        told = {"reason": "loading", "phase": self.phase, "loading_s": loading_s}
        if path == READY_PATH:
            return _response(UNAVAILABLE.status, msgspec.json.encode({"ready": False, **told}))
        message = f"the model is loading (after: {self.phase}): try again in a few seconds"
        return _response(UNAVAILABLE.status, encode_error(message, UNAVAILABLE, None, told))


@contextmanager
def answering(sock: socket.socket, page: LoadingPage, tls: ssl.SSLContext | None) -> Iterator[None]:
    """Answer on a listening socket while the body runs; it listens afterwards, too."""
    responder = _Responder(sock, page, tls)
    responder.start()
    try:
        yield
    finally:
        responder.end()


class _Responder(threading.Thread):
    """The thread. A daemon: a slow client's connection holds up neither the start nor the end."""

    def __init__(self, sock: socket.socket, page: LoadingPage, tls: ssl.SSLContext | None) -> None:
        super().__init__(name="loading-page", daemon=True)
        # Closing a duplicate leaves the caller's socket listening.
        self._sock = sock.dup()
        self._page = page
        self._tls = tls
        self._is_serving = threading.Event()
        self._has_ended = threading.Event()

    def start(self) -> None:
        super().start()
        self._is_serving.wait()

    def run(self) -> None:
        try:
            asyncio.run(self._serve())
        finally:
            self._is_serving.set()
            self._has_ended.set()

    def end(self) -> None:
        """Take no more connections; returns when that is so."""
        self._loop.call_soon_threadsafe(self._stop.set)
        self._has_ended.wait()

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        connections: set[asyncio.Task[None]] = set()

        async def serve_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            connections.add(task)
            try:
                await self._answer(reader, writer)
            finally:
                connections.discard(task)

        server = await asyncio.start_server(serve_one, sock=self._sock, ssl=self._tls)
        self._is_serving.set()
        await self._stop.wait()
        server.close()
        self._has_ended.set()
        await asyncio.gather(*connections, return_exceptions=True)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # A client that leaves, is slow or talks nonsense: nobody is owed an answer.
        with contextlib.suppress(
            OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, LookupError, ValueError
        ):
            async with asyncio.timeout(CLIENT_TIMEOUT_S):
                head = await reader.readuntil(b"\r\n\r\n")
                target = head.split(b" ", 2)[1].decode("latin-1")
                await _skip_body(head, reader)
                response = self._page.answer(target.partition("?")[0])
                writer.write(_without_body(response) if head.startswith(b"HEAD ") else response)
                await writer.drain()
        writer.close()


async def _skip_body(head: bytes, reader: asyncio.StreamReader) -> None:
    for line in head.lower().split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name == b"content-length":
            await reader.readexactly(min(int(value), MAX_BODY_BYTES))


def _response(status: int, body: bytes) -> bytes:
    lines = [
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}",
        "connection: close",
        f"content-length: {len(body)}",
    ]
    if body:
        lines.append("content-type: application/json")
    if status != HEALTHY:
        lines.append(f"retry-after: {RETRY_AFTER_S}")
    return "\r\n".join([*lines, "", ""]).encode() + body


def _without_body(response: bytes) -> bytes:
    return response[: response.index(b"\r\n\r\n") + 4]
