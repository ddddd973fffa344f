"""One HTTP request to an ASGI app, without a server, a socket or a client library.

An ASGI app is a function, `await app(scope, receive, send)`: it asks for what the client sent with
`receive` and answers with `send`. Here both are made by hand, so that a test can see each piece of
an answer when it is sent, and lets the client leave at a moment of its choice:

    exchange = Exchange(app, "POST", "/generate", {"prompt": "Hello", "stream": True})
    await exchange.received(1)        # the first piece of the answer is there
    exchange.leave()                  # the client hangs up
    await exchange.ended()
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any


class Exchange:
    """A request on its way, and what has been answered. Starts at once, on the running loop."""

    def __init__(self, app: Any, method: str, path: str, body: Any = None) -> None:
        """body: bytes as they are, or anything to be sent as JSON; None sends nothing."""
        self.status: int | None = None
        self.pieces: list[bytes] = []
        self.error: BaseException | None = None
        """What the app raised; a server would answer 500, or hang up."""
        self._body = body if isinstance(body, bytes) else json.dumps(body).encode()
        self._body = b"" if body is None else self._body
        self._is_body_read = False
        self._is_complete = False
        self._has_left = asyncio.Event()
        self._scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": [
                (b"host", b"lab"),
                (b"content-type", b"application/json"),
                (b"content-length", str(len(self._body)).encode()),
            ],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 8000),
            "state": {},
        }
        self._task = asyncio.create_task(self._run(app))

    @property
    def text(self) -> str:
        return b"".join(self.pieces).decode("utf-8", "replace")

    def json(self) -> Any:
        """Return the answer as JSON; None if it is none."""
        try:
            return json.loads(self.text)
        except ValueError:
            return None

    def leave(self) -> None:
        """Let the client hang up."""
        self._has_left.set()

    async def received(self, num_pieces: int) -> None:
        """Wait until so many pieces that are not empty were sent, or all."""
        await self._until(lambda: len(self.pieces) >= num_pieces or self._task.done())

    async def ended(self) -> Exchange:
        """Wait until the app has returned; return this."""
        await asyncio.wait([self._task])
        return self

    async def _run(self, app: Any) -> None:
        try:
            await app(self._scope, self._receive, self._send)
        except Exception as error:
            # Starlette answers 500 and raises the error once more, for the server's log.
            self.error = error

    async def _receive(self) -> dict[str, Any]:
        if not self._is_body_read:
            self._is_body_read = True
            return {"type": "http.request", "body": self._body, "more_body": False}
        await self._until(lambda: self._has_left.is_set() or self._is_complete)
        return {"type": "http.disconnect"}

    async def _send(self, message: dict[str, Any]) -> None:
        if self._has_left.is_set():
            return  # as servers do: nobody is there to be told
        if message["type"] == "http.response.start":
            self.status = message["status"]
        if message["type"] == "http.response.body":
            if piece := message.get("body", b""):
                self.pieces.append(bytes(piece))
            self._is_complete = not message.get("more_body", False)
        await asyncio.sleep(0)

    async def _until(self, is_so: Callable[[], bool]) -> None:
        """Wait until it is so. Cancelling it, as a look with a time limit does, loses nothing."""
        while not is_so():
            await asyncio.sleep(0.002)
