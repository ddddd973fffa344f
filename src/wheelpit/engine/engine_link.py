"""EngineLink: the supervisor's engines as processes, and its timers as an event loop's.

It waits for the first engine to be ready, serves the sockets from an event loop, carries control
calls, and says why the engine is gone for good to whoever asks. `AsyncLLMEngine` owns one; the loop
holds the link, not the engine, so that `del engine` ends both.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import Callable
from typing import Any

from wheelpit.engine.messages import (
    Abort,
    AddRequest,
    Call,
    CallResult,
    FromEngine,
    Ready,
    SetTenants,
)
from wheelpit.engine.process import EngineProcess, Engines
from wheelpit.engine.request_book import RequestBook
from wheelpit.engine.restart_settings import RestartSettings
from wheelpit.engine.supervisor import EngineHealth, Supervisor
from wheelpit.errors import EngineDeadError, EngineGenerateError

log = logging.getLogger(__name__)


class EngineLink:
    """One front end's engine processes and the requests that depend on them.

    Written by the event loop's thread only, except before the first `attach`.
    """

    def __init__(
        self,
        process: EngineProcess,
        engines: Engines,
        book: RequestBook,
        settings: RestartSettings,
    ) -> None:
        """Take over a process that was told to start. engines: starts others like it."""
        self._first = process
        self._book = book
        self._ready: Ready | None = None
        self._started_s = time.monotonic()
        self._loading_s = 0.0
        self._call_ids = itertools.count()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._engine: _ProcessEngine | None = None
        self._death: EngineDeadError | None = None
        self._engines = engines
        self._supervisor = Supervisor(
            book, self._launch_engine, time.monotonic, call_later, settings, self._on_dead
        )

    @property
    def pid(self) -> int | None:
        """The present engine process's; None between two."""
        if self._loop is None:
            return self._first.pid
        engine = self._supervisor.engine
        return engine.process.pid if isinstance(engine, _ProcessEngine) else None

    @property
    def ready(self) -> Ready | None:
        """What the first engine resolved at its start; None before that."""
        return self._ready

    @property
    def is_dead(self) -> bool:
        """True when there will be no engine any more."""
        return self._death is not None

    @property
    def dead_error(self) -> EngineDeadError:
        """A fresh exception that says why the engine is gone."""
        error = EngineDeadError()
        error.__cause__ = self._death
        return error

    def health(self) -> EngineHealth:
        return self._supervisor.health()

    def check(self) -> None:
        """Raise EngineDeadError if there will be no engine any more."""
        if self.is_dead:
            raise self.dead_error

    def set_tenants(self, message: SetTenants) -> None:
        """Tell the engine, and every later one."""
        self._supervisor.set_tenants(message)

    def wait_until_ready(self, on_phase: Callable[[str, float], None]) -> Ready:
        """Block until the model is loaded. See `EngineProcess.wait_until_ready`."""
        if self._ready is None:
            try:
                self._ready = self._first.wait_until_ready(on_phase)
            except BaseException:
                self._death = EngineDeadError("the engine did not start")
                self._first.stop()
                self._engines.close()
                raise
            self._loading_s = time.monotonic() - self._started_s
            self._engines.settle(self._ready)
        return self._ready

    def attach(self) -> None:
        """Serve the engine from the running loop.

        Raises RuntimeError while another loop does: an engine belongs to one loop at a time.
        """
        if self._ready is None:
            raise RuntimeError("the engine is not ready: call wait_until_ready() first")
        loop = asyncio.get_running_loop()
        if self._loop is loop:
            return
        if self._loop is not None and not self._loop.is_closed():
            raise RuntimeError(
                "this engine is in use by another event loop; an engine belongs to the loop of "
                "its first request: send requests from there (asyncio.run_coroutine_threadsafe) "
                "or build one engine per loop"
            )
        is_first, self._loop = self._loop is None, loop
        if is_first:
            self._supervisor.adopt(_ProcessEngine(self._first), self._loading_s)
            return
        # Requests of a loop that was closed can have no consumer any more.
        self._book.discard(self._book.requests)
        engine = self._supervisor.engine
        if isinstance(engine, _ProcessEngine):
            engine.move_to(loop)
        self._supervisor.resume_timers()

    async def call(self, method: str) -> Any:
        """Run one of the engine's control methods and return its answer."""
        self.check()
        self.attach()
        future: asyncio.Future[CallResult] = asyncio.get_running_loop().create_future()

        def resolve(result: CallResult) -> None:
            if not future.done() and not future.get_loop().is_closed():
                future.set_result(result)

        self._supervisor.call(Call(next(self._call_ids), method), resolve)
        result = await future
        self.check()
        if result.error is not None:
            raise EngineGenerateError(result.error)
        return result.value

    def restart(self, reason: str) -> None:
        """Replace the engine process; the requests go on."""
        self.check()
        self.attach()
        self._supervisor.restart(reason)

    def close(self) -> None:
        """End every request and the process. Idempotent; blocks for moments."""
        if self._death is None:
            self._supervisor.close(EngineDeadError("the engine was shut down"))
        self._first.kill()
        self._engines.close()

    def _launch_engine(self) -> _ProcessEngine:
        return _ProcessEngine(self._engines.start())

    def _on_dead(self, error: EngineDeadError) -> None:
        self._death = error
        self._book.fail_all(lambda: self.dead_error)


class _ProcessEngine:
    """An engine process as the supervisor sees it."""

    def __init__(self, process: EngineProcess) -> None:
        self.process = process
        self._on_message: Callable[[FromEngine], None] = lambda message: None
        self._on_end: Callable[[str, bool], None] = lambda reason, was_killed: None

    def send(self, message: AddRequest | Abort | SetTenants | Call) -> None:
        self.process.channel.send(message)

    def connect(
        self, on_message: Callable[[FromEngine], None], on_end: Callable[[str, bool], None]
    ) -> None:
        self._on_message, self._on_end = on_message, on_end
        self.move_to(asyncio.get_running_loop())

    def move_to(self, loop: asyncio.AbstractEventLoop) -> None:
        """Be served by this loop from now on."""
        channel = self.process.channel
        channel.detach()
        channel.attach(loop, self._on_message, self._close)

    def kill(self) -> None:
        self.process.kill()

    def _close(self) -> None:
        """The process closed its socket: it is dead, or as good as dead."""
        reason, was_killed = self.process.describe_end()
        self._on_end(reason, was_killed)


def call_later(seconds: float, callback: Callable[[], None]) -> asyncio.TimerHandle:
    """Have the running loop call something after a while."""
    return asyncio.get_running_loop().call_later(seconds, callback)
