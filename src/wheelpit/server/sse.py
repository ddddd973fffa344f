"""Server-sent events, fast: the constant parts of a chunk are built once per request.

A chunk of plain text costs one string escape and one concatenation; nothing is validated or
encoded as a whole per token. What the engine merged while the client was slow is one chunk.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing

import msgspec
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from wheelpit.server.disconnect import StopOnDisconnect
from wheelpit.server.errors import error_body, log_error

DONE = b"data: [DONE]\n\n"

encode = msgspec.json.Encoder().encode


class ChunkWriter:
    """Writes the chunks of one streamed answer."""

    def __init__(self, head: Mapping[str, object], text_open: bytes, text_close: bytes) -> None:
        """head: the fields before "choices". text_open, text_close: what surrounds the text."""
        self._head = b"data: " + encode(head)[:-1] + b',"choices":['
        self._text_open = text_open
        self._text_close = text_close
        self._plain_close = text_close + b',"logprobs":null,"finish_reason":null}]}\n\n'
        self._opens: dict[int, bytes] = {}

    def plain(self, index: int, text: str) -> bytes:
        """A chunk with nothing but text: the hot path."""
        start = self._opens.get(index)
        if start is None:
            start = self._opens[index] = self._head + b'{"index":%d,' % index + self._text_open
        return start + encode(text) + self._plain_close

    def chunk(
        self,
        index: int,
        text: str,
        choice: Mapping[str, object],
        top: Mapping[str, object],
        logprobs: object = None,
        finish_reason: str | None = None,
    ) -> bytes:
        """A chunk with more: `choice` and `top` add fields to the choice and to the chunk."""
        more = {"logprobs": logprobs, "finish_reason": finish_reason, **choice}
        body = (
            b'{"index":%d,' % index,
            self._text_open,
            encode(text),
            self._text_close,
            b",",
            encode(more)[1:],
        )
        return self._finish(b"".join(body), top)

    def raw(self, choice: Mapping[str, object], top: Mapping[str, object]) -> bytes:
        """A chunk whose choice is given whole."""
        return self._finish(encode(choice), top)

    def usage(self, usage: object) -> bytes:
        """The chunk without choices that ends a stream."""
        return self._finish(b"", {"usage": usage})

    def _finish(self, choice: bytes, top: Mapping[str, object]) -> bytes:
        end = b"," + encode(top)[1:] if top else b"}"
        return self._head + choice + b"]" + end + b"\n\n"


class EventStream(Response):
    """Send events as they come; stop the work when the client leaves.

    Nothing is sent before the first event exists, so that an error up to then is a plain error
    answer with its own status. A later one becomes an error event and [DONE].
    """

    def __init__(self, events: AsyncGenerator[bytes, None]) -> None:
        # Not calling Response.__init__: it would declare a content length.
        self._events = events
        self.status_code = 200
        self.background = None
        self.media_type = "text/event-stream"
        self.init_headers({"cache-control": "no-cache", "x-accel-buffering": "no"})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with StopOnDisconnect(receive), aclosing(self._events) as events:
            event = await anext(events, DONE)
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            try:
                await send(_body(event))
                async for event in events:
                    await send(_body(event))
            except Exception as error:
                log_error(error, scope["path"])
                await send(_body(b"data: " + error_body(error) + b"\n\n" + DONE))
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def _body(event: bytes) -> dict[str, object]:
    return {"type": "http.response.body", "body": event, "more_body": True}
