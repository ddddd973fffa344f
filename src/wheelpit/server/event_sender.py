"""Send one stream's events, and comments to whoever waits while there are none.

Lines that begin with a colon are comments in the format of server-sent events: clients skip them.
They tell people and proxies that the connection lives, and what a request that waits is waiting
for. Costs nothing per event but a count: one timer a stream asks now and then whether it was quiet.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

from starlette.types import Send

HEADERS = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
)


class EventSender:
    """One answer on its way out. Written only by its stream's task and its own timer.

    Nothing is sent before the first event or comment, so that an error up to then can be a plain
    answer with a status of its own. Inside `async with` it comments on silence.
    """

    def __init__(
        self,
        send: Send,
        comment: Callable[[], bytes],
        interval_s: float,
        headers: Sequence[tuple[bytes, bytes]] = (),
    ) -> None:
        """comment: what to say when nothing was sent for interval_s; 0 says nothing ever.
        headers: more of them.
        """
        self.has_begun = False
        self._send = send
        self._comment = comment
        self._interval_s = interval_s
        self._headers = (*HEADERS, *headers)
        self._num_sent = 0
        self._num_sent_before = 0
        self._is_sending = False
        self._timer: asyncio.TimerHandle | None = None
        self._commenting: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        if self._interval_s > 0:
            self._set_timer()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._commenting is not None:
            self._commenting.cancel()

    async def send(self, event: bytes) -> None:
        """Send one or several events; waits while the client is slow to read."""
        self._num_sent += 1
        self._is_sending = True
        try:
            await self._write(event)
        finally:
            self._is_sending = False

    async def end(self) -> None:
        """Say that this was all; call it outside of `async with`."""
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _write(self, event: bytes) -> None:
        if not self.has_begun:
            self.has_begun = True
            headers = list(self._headers)  # middlewares add theirs to it
            await self._send({"type": "http.response.start", "status": 200, "headers": headers})
        await self._send({"type": "http.response.body", "body": event, "more_body": True})

    def _set_timer(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self._interval_s, self.look)

    def look(self) -> None:
        """Comment, if it was quiet: unless the client is behind, who has enough to read."""
        self._set_timer()
        is_behind = self._is_sending or not (self._commenting is None or self._commenting.done())
        if self._num_sent == self._num_sent_before and not is_behind:
            self._commenting = asyncio.get_running_loop().create_task(self._write(self._comment()))
        self._num_sent_before = self._num_sent
