"""Stop working for a client that has left."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self

from starlette.types import Receive

from wheelpit.server.errors import ClientGoneError


class StopOnDisconnect:
    """Async context manager: cancel the body when the client leaves, and raise ClientGoneError.

    Works like asyncio.timeout with the disconnect in place of the clock: one small task waits for
    it, the work itself stays in the caller's task. The request's body must have been read before.
    Do not send the last part of an answer inside: the server reports that as a disconnect, too.
    """

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._is_gone = False

    async def __aenter__(self) -> Self:
        task = asyncio.current_task()
        assert task is not None
        self._task: asyncio.Task[object] = task
        self._watcher = asyncio.create_task(self._watch())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # Nothing is awaited here, so the watcher cannot cancel code after the body.
        self._watcher.cancel()
        if self._is_gone and self._task.uncancel() == 0 and kind is asyncio.CancelledError:
            raise ClientGoneError("the client has left") from error

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._is_gone = True
        self._task.cancel()
