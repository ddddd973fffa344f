"""Run the HTTP server until it is told to stop: `serve(engine, options, listen)`.

The life of a server, once the model is loaded:

    bind ── listen ── serve ── signal ── drain ── abort the rest ── no connections ── end
                        │                (up to shutdown_timeout_s)
                        └─ engine dead ── the same without draining, exit code 1

While it drains it answers as before, but takes no new requests: 503, and not ready. A second signal
ends that at once; a third one the process, in whatever state it is.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

import uvicorn

from wheelpit.server.app import create_app, service_of
from wheelpit.server.listen import BACKLOG, Listen, bind, listen_error, release, url_of
from wheelpit.server.options import ServerOptions
from wheelpit.server.served_engine import ServedEngine

log = logging.getLogger(__name__)

ABORT_TIMEOUT_S = 2
"""For clients to take the rest of their answers once these are aborted."""

DRAIN_RETRY_AFTER_S = 5.0
"""For clients that come while the server drains: by then another one should be there."""


class HttpServer:
    """One listening application. Used on one event loop; `stop` may be called from a signal."""

    def __init__(
        self, engine: ServedEngine, options: ServerOptions, listen: Listen, sock: socket.socket
    ) -> None:
        """sock: what `bind` returned; it stays the caller's to close."""
        self._engine = engine
        self._listen = listen
        self._sock = sock
        self._stopping = asyncio.Event()
        self._exit_code = 0
        self.app = create_app(engine, options)
        self._live = service_of(self.app).live
        self._streams = service_of(self.app).streams
        self._server = uvicorn.Server(
            uvicorn.Config(
                self.app,
                http="httptools",
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=listen.access_log,
                proxy_headers=False,
                server_header=False,
                backlog=BACKLOG,
                timeout_keep_alive=listen.keep_alive_s,
                timeout_graceful_shutdown=ABORT_TIMEOUT_S,
                timeout_notify=1,
                callback_notify=self._look_after_engine,
                ssl_keyfile=listen.ssl_keyfile,
                ssl_certfile=listen.ssl_certfile,
                ssl_keyfile_password=listen.ssl_keyfile_password,
                ssl_ca_certs=listen.ssl_ca_certs,
                ssl_cert_reqs=listen.ssl_cert_reqs,
                ssl_ciphers=listen.ssl_ciphers,
            )
        )

    async def run(self, on_ready: Callable[[str], None] = lambda url: None) -> int:
        """Serve until `stop`; return the exit code. on_ready hears the URL. ListenError."""
        server = self._server
        # uvicorn's own entry point would install signal handlers that end the process by signal.
        server.config.load()
        server.lifespan = server.config.lifespan_class(server.config)
        try:
            self._sock.listen(BACKLOG)
        except OSError as error:
            raise listen_error(self._listen, error) from error
        # Or nobody would notice before the first request that it has died.
        self._engine.attach()
        url = url_of(self._listen, self._sock)
        await server.startup(sockets=[self._sock])
        log.info("listening on %s", url)
        on_ready(url)
        draining = asyncio.create_task(self._drain())
        try:
            await server.main_loop()
            await server.shutdown(sockets=[self._sock])
        finally:
            draining.cancel()
            await asyncio.gather(draining, return_exceptions=True)
            await self._streams.close()
            release(self._listen)
        return self._exit_code

    def stop(self) -> None:
        """Begin to end: no new requests, then those in flight. Idempotent."""
        if not self._stopping.is_set():
            self._engine.stop_admitting(DRAIN_RETRY_AFTER_S)
            self._stopping.set()

    def stop_now(self) -> None:
        """End at once, whoever is waiting for whatever."""
        self.stop()
        self._live.cancel_all()
        self._server.should_exit = self._server.force_exit = True

    async def _drain(self) -> None:
        """Once told to stop, let running requests finish while there is time, then end them with
        "abort"; then the connections.
        """
        await self._stopping.wait()
        patience_s = self._listen.shutdown_timeout_s
        log.info("draining: %d requests have %g s to finish", len(self._live), patience_s)
        try:
            async with asyncio.timeout(patience_s):
                await self._live.wait_until_idle()
        except TimeoutError:
            log.info("aborting %d requests", len(self._live))
            self._live.cancel_all()
        self._server.should_exit = True

    async def _look_after_engine(self) -> None:
        """End the server when its engine is gone: an orchestrator will start a new one."""
        if self._engine.errored and not self._stopping.is_set():
            log.error("the engine is dead: the server ends")
            self._exit_code = 1
            self.stop()


async def serve(
    engine: ServedEngine,
    options: ServerOptions | None = None,
    listen: Listen | None = None,
    sock: socket.socket | None = None,
    on_ready: Callable[[str], None] = lambda url: None,
) -> int:
    """Serve an engine that is ready until SIGTERM or SIGINT; return the exit code.

    sock: what `bind(listen)` returned; None binds here. Shuts the engine down at the end, however
    it comes. Handles signals only in the main thread. Raises ListenError.
    """
    listen = listen or Listen()
    try:
        sock = sock or bind(listen)
        with closing(sock):
            server = HttpServer(engine, options or ServerOptions(), listen, sock)
            with _stop_on_signal(server):
                return await server.run(on_ready)
    finally:
        engine.shutdown()


@contextmanager
def _stop_on_signal(server: HttpServer) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    signals = (signal.SIGINT, signal.SIGTERM)

    def on_first() -> None:
        log.info("stopping; a second signal ends what is running at once")
        for number in signals:
            loop.add_signal_handler(number, on_second)
        server.stop()

    def on_second() -> None:
        # Of no use to a loop that hangs: the next one needs none.
        for number in signals:
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_DFL)
        server.stop_now()

    for number in signals:
        loop.add_signal_handler(number, on_first)
    try:
        yield
    finally:
        for number in signals:
            loop.remove_signal_handler(number)


def run(
    engine: ServedEngine,
    options: ServerOptions | None = None,
    listen: Listen | None = None,
    sock: socket.socket | None = None,
    on_ready: Callable[[str], None] = lambda url: None,
) -> int:
    """`serve` on an event loop of its own, uvloop's where there is one. Blocks."""
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(serve(engine, options, listen, sock, on_ready))


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop
