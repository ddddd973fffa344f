"""EngineLink: the front end's tie to its engine process, from the first message to its death.

It waits for the engine to be ready, serves the socket from an event loop, carries control calls,
and when the process is gone, ends every request in the book and says why to whoever asks.
`AsyncLLMEngine` owns one; the loop holds the link, not the engine, so that `del engine` ends both.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable
from typing import Any

from wheelpit.engine.messages import Call, CallResult, Ready, SetTenants, StepOutput
from wheelpit.engine.process import EngineProcess
from wheelpit.engine.request_book import RequestBook
from wheelpit.errors import EngineDeadError, EngineGenerateError

log = logging.getLogger(__name__)


class EngineLink:
    """One engine process and the requests that depend on it.

    Written by the event loop's thread only, except before the first `attach`.
    """

    def __init__(self, process: EngineProcess, book: RequestBook) -> None:
        """Take over a process that was told to start."""
        self._process = process
        self._book = book
        self._ready: Ready | None = None
        self._calls: dict[int, asyncio.Future[CallResult]] = {}
        self._call_ids = itertools.count()
        self._is_closed = False
        self._death: EngineDeadError | None = None

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def ready(self) -> Ready | None:
        """What the engine resolved at its start; None before that."""
        return self._ready

    @property
    def is_dead(self) -> bool:
        return self._is_closed or self._death is not None or not self._process.is_alive

    @property
    def dead_error(self) -> EngineDeadError:
        """A fresh exception that says why the engine is gone."""
        error = EngineDeadError()
        error.__cause__ = self._death
        if self._death is None and not self._process.is_alive:
            error.__cause__ = EngineDeadError(f"the engine process {self._process.describe_end()}")
        return error

    def check(self) -> None:
        """Raise EngineDeadError if the engine process is gone."""
        if self.is_dead:
            raise self.dead_error

    def send(self, message: SetTenants) -> None:
        """Pass a message on that has no answer."""
        self._process.channel.send(message)

    def wait_until_ready(self, on_phase: Callable[[str, float], None]) -> Ready:
        """Block until the model is loaded. See `EngineProcess.wait_until_ready`."""
        if self._ready is None:
            try:
                self._ready = self._process.wait_until_ready(on_phase)
            except BaseException:
                self._is_closed = True
                self._process.stop()
                raise
        return self._ready

    def attach(self) -> bool:
        """Serve the socket from the running loop; True if it was not served from it before.

        Raises RuntimeError while another loop does: an engine belongs to one loop at a time.
        """
        if self._ready is None:
            raise RuntimeError("the engine is not ready: call wait_until_ready() first")
        loop = asyncio.get_running_loop()
        channel = self._process.channel
        if channel.loop is loop:
            return False
        if channel.loop is not None and not channel.loop.is_closed():
            raise RuntimeError(
                "this engine is in use by another event loop; an engine belongs to the loop of "
                "its first request: send requests from there (asyncio.run_coroutine_threadsafe) "
                "or build one engine per loop"
            )
        # Requests of a loop that was closed can have no consumer any more.
        self._book.discard(self._book.requests)
        channel.detach()
        channel.attach(loop, self._on_message, self._on_close)
        return True

    async def call(self, method: str) -> Any:
        """Run one of the engine's control methods and return its answer."""
        self.check()
        self.attach()
        call_id = next(self._call_ids)
        future: asyncio.Future[CallResult] = asyncio.get_running_loop().create_future()
        self._calls[call_id] = future
        self._process.channel.send(Call(call_id, method))
        result = await future
        if result.error is not None:
            raise EngineGenerateError(result.error)
        return result.value

    def close(self) -> None:
        """End every request and the process. Idempotent; blocks at most about two seconds."""
        if self._is_closed:
            return
        self._is_closed = True
        self._end_everything(EngineDeadError("the engine was shut down"))
        self._process.stop()

    def _on_message(self, message: StepOutput | CallResult) -> None:
        if isinstance(message, StepOutput):
            self._book.on_step(message)
        elif isinstance(message, CallResult):
            future = self._calls.pop(message.call_id, None)
            if future is not None and not future.done():
                future.set_result(message)

    def _on_close(self) -> None:
        """The engine process closed its socket: it is dead."""
        reason = EngineDeadError(f"the engine process {self._process.describe_end()}")
        log.error("%s; %d requests end with EngineDeadError", reason, len(self._book))
        self._end_everything(reason)

    def _end_everything(self, reason: EngineDeadError) -> None:
        self._death = self._death or reason
        self._book.fail_all(lambda: self.dead_error)
        calls, self._calls = self._calls, {}
        for future in calls.values():
            if not future.done() and not future.get_loop().is_closed():
                future.set_exception(self.dead_error)
