"""HTTP/1.1 over a raw asyncio Protocol, timing server-sent events as they arrive.

The load generator shares the machine's cores with the server it measures, so a token must cost the
client a few microseconds: no task wakes up per chunk, and no JSON is parsed while tokens arrive. An
event is taken to bring tokens when a regular expression finds a "text" or "content" in it. That may
be empty, for a special token or a part of a character; but an empty one that comes with a role or a
finish reason brings none. Usage, finish reason and error are read from the last events once the
response is over.

All events that come in one read of the socket are one arrival: they share a timestamp, and
measure.py divides the gap before them among their tokens.
"""

import asyncio
import json
import re
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast
from urllib.parse import urlsplit

from wheelpit.errors import ConfigError

# Inside generated text a quote is escaped, so `"content":` can only be a key of the chunk itself.
_TEXT = re.compile(rb'"(?:text|content|reasoning_content|reasoning)": ?"(.)')
_NO_TOKEN = re.compile(rb'"(?:role|finish_reason)": ?"')
_FINISH_REASON = re.compile(rb'"finish_reason": ?"(\w+)"')
_STOP_REASON = re.compile(rb'"stop_reason": ?"(\w+)"')
_TAIL_EVENTS = 4  # last token, finish, usage, [DONE]


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts as the server reports them."""

    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request and its whole response, with the time of each arrival of tokens.

    Times are the clock's seconds. `body` is empty for a stream that began with status 200.
    `retry_after_s` is what a server that refuses asks for.
    """

    status: int
    body: bytes
    arrival_times_s: tuple[float, ...]
    arrival_events: tuple[int, ...]
    ended_s: float
    usage: Usage | None
    finish_reason: str | None
    stop_reason: str | None
    stream_error: str | None
    retry_after_s: float | None


class ResponseReader:
    """Take one HTTP/1.1 response apart as its bytes arrive: the status, then decoded body bytes.

    Knows Content-Length, chunked and until-close framing; not 1xx responses: we ask for none.
    """

    __slots__ = (
        "_buffer",
        "_is_chunked",
        "_remaining",
        "is_complete",
        "is_keep_alive",
        "retry_after_s",
        "status",
    )

    def __init__(self) -> None:
        self.status: int | None = None
        self.retry_after_s: float | None = None
        self.is_complete = False
        self.is_keep_alive = True
        self._buffer = b""
        self._is_chunked = False
        self._remaining: int | None = None  # None: the body ends when the connection does

    def feed(self, data: bytes) -> bytes:
        """Return the body bytes that `data` completes; raise ValueError on a malformed response."""
        if self._buffer:
            data = self._buffer + data
            self._buffer = b""
        if self.status is None:
            head, separator, data = data.partition(b"\r\n\r\n")
            if not separator:
                self._buffer = head
                return b""
            self._read_head(head)
        if self._is_chunked:
            return self._dechunk(data)
        if self._remaining is None:
            return data
        data = data[: self._remaining]
        self._remaining -= len(data)
        self.is_complete = self._remaining == 0
        return data

    def end_of_connection(self) -> bool:
        """Say whether the server closing now is the regular end of this response."""
        return self.status is not None and not self._is_chunked and self._remaining is None

    def _read_head(self, head: bytes) -> None:
        lines = head.split(b"\r\n")
        self.status = int(lines[0].split(b" ", 2)[1])
        for line in lines[1:]:
            name, _, value = line.partition(b":")
            name, value = name.lower(), value.strip().lower()
            if name == b"transfer-encoding" and b"chunked" in value:
                self._is_chunked = True
            elif name == b"content-length":
                self._remaining = int(value)
            elif name == b"connection" and value == b"close":
                self.is_keep_alive = False
            elif name == b"retry-after" and value.isdigit():  # else a date, which nobody sends
                self.retry_after_s = float(value)
        if self._remaining is None and not self._is_chunked:
            self.is_keep_alive = False

    def _dechunk(self, data: bytes) -> bytes:
        parts: list[bytes] = []
        position = 0
        while (line_end := data.find(b"\r\n", position)) >= 0:
            size = int(data[position:line_end].partition(b";")[0], 16)
            start = line_end + 2
            if len(data) < start + size + 2:
                break
            if size == 0:  # trailers, which no server of this kind sends, would stand here
                self.is_complete = True
                break
            parts.append(data[start : start + size])
            position = start + size + 2
        self._buffer = data[position:]
        return parts[0] if len(parts) == 1 else b"".join(parts)


class EventReader:
    """Split a body into server-sent events, count those with tokens and keep the last few."""

    __slots__ = ("_rest", "tail")

    def __init__(self) -> None:
        self._rest = b""
        self.tail: deque[bytes] = deque(maxlen=_TAIL_EVENTS)

    def feed(self, body: bytes) -> int:
        """Return how many of the events that `body` completes bring tokens."""
        if self._rest:
            body = self._rest + body
        if b"\r" in body:
            body = body.replace(b"\r\n", b"\n")
        events = body.split(b"\n\n")
        self._rest = events.pop()
        num_token_events = 0
        for event in events:
            text = _TEXT.search(event)
            if text is not None and (text[1] != b'"' or _NO_TOKEN.search(event) is None):
                num_token_events += 1
            self.tail.append(event)
        return num_token_events


class HttpConnection(asyncio.Protocol):
    """One keep-alive connection with at most one exchange at a time."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.num_exchanges = 0
        self.has_received = False
        self._clock = clock
        self._transport: asyncio.Transport | None = None
        self._waiter: asyncio.Future[Exchange] | None = None
        self._is_stream = False
        self._begin()

    async def exchange(self, request: bytes, *, is_stream: bool) -> Exchange:
        """Send one request and return its response; raise ConnectionError if it breaks."""
        assert self._waiter is None, "one exchange at a time"
        if self._transport is None or self._transport.is_closing():
            raise ConnectionResetError("connection is closed")
        self.num_exchanges += 1
        self._begin()
        self._is_stream = is_stream
        self._waiter = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        try:
            return await self._waiter
        finally:
            self._waiter = None
            if not (self._reader.is_complete and self._reader.is_keep_alive):
                self.close()

    @property
    def is_reusable(self) -> bool:
        """Say whether another exchange may be sent."""
        return self._transport is not None and not self._transport.is_closing()

    def close(self) -> None:
        """Close the socket; a waiting exchange fails."""
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport (called by the event loop)."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass of it

    def data_received(self, data: bytes) -> None:
        """Read what arrived: the hot path, once per read of the socket."""
        now = self._clock()
        self.has_received = True
        try:
            body = self._reader.feed(data)
        except ValueError as error:
            self._fail(ConnectionError(f"malformed response: {error}"))
            return
        if body:
            if self._is_stream and self._reader.status == 200:
                num_token_events = self._events.feed(body)
                if num_token_events:
                    self._times.append(now)
                    self._counts.append(num_token_events)
            else:
                self._body.append(body)
        if self._reader.is_complete:
            self._finish()

    def connection_lost(self, exc: Exception | None) -> None:
        """End or fail the exchange in flight (called by the event loop)."""
        if self._reader.end_of_connection():
            self._finish()
        else:
            self._fail(ConnectionResetError(str(exc) if exc else "server closed the connection"))

    def _begin(self) -> None:
        self.has_received = False
        self._reader = ResponseReader()
        self._events = EventReader()
        self._times: list[float] = []
        self._counts: list[int] = []
        self._body: list[bytes] = []

    def _finish(self) -> None:
        if self._waiter is None or self._waiter.done():
            return
        assert self._reader.status is not None
        tail = list(self._events.tail)
        self._waiter.set_result(
            Exchange(
                status=self._reader.status,
                body=b"".join(self._body),
                arrival_times_s=tuple(self._times),
                arrival_events=tuple(self._counts),
                ended_s=self._clock(),
                usage=_find_usage(tail),
                finish_reason=_find_last(_FINISH_REASON, tail),
                stop_reason=_find_last(_STOP_REASON, tail),
                stream_error=_find_error(tail),
                retry_after_s=self._reader.retry_after_s,
            )
        )

    def _fail(self, error: Exception) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(error)


class HttpClient:
    """Requests to one server over a pool of keep-alive connections, as many as are in flight."""

    def __init__(
        self, url: str, *, clock: Callable[[], float], api_key: str | None, timeout_s: float
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(f"url is {url!r}: give http://HOST:PORT")
        self._host = parts.hostname
        self._is_tls = parts.scheme == "https"
        self._port = parts.port or (443 if self._is_tls else 80)
        self._prefix = parts.path.rstrip("/")
        self._clock = clock
        self._timeout_s = timeout_s
        self._idle: list[HttpConnection] = []
        authorization = f"Authorization: Bearer {api_key}\r\n" if api_key else ""
        self._headers = (
            f"Host: {parts.netloc}\r\nAccept: */*\r\n{authorization}"
            "Content-Type: application/json\r\n"
        )

    async def get(self, path: str) -> Exchange:
        """Send a GET."""
        return await self._send(self._serialize("GET", path, b""), is_stream=False)

    async def post(self, path: str, body: bytes, *, is_stream: bool = False) -> Exchange:
        """Send a POST with a JSON body; TimeoutError after the client's time limit."""
        return await self._send(self._serialize("POST", path, body), is_stream=is_stream)

    def close(self) -> None:
        """Close the idle connections."""
        for connection in self._idle:
            connection.close()
        self._idle.clear()

    def _serialize(self, method: str, path: str, body: bytes) -> bytes:
        head = f"{method} {self._prefix}{path} HTTP/1.1\r\n{self._headers}"
        return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body

    async def _send(self, request: bytes, *, is_stream: bool) -> Exchange:
        async with asyncio.timeout(self._timeout_s):
            connection = self._take_idle() or await self._connect()
            is_reused = connection.num_exchanges > 0
            try:
                exchange = await connection.exchange(request, is_stream=is_stream)
            except ConnectionError:
                # A server may close an idle connection just as we write to it.
                if not is_reused or connection.has_received:
                    raise
                connection = await self._connect()
                exchange = await connection.exchange(request, is_stream=is_stream)
        if connection.is_reusable:
            self._idle.append(connection)
        return exchange

    def _take_idle(self) -> HttpConnection | None:
        while self._idle:
            connection = self._idle.pop()
            if connection.is_reusable:
                return connection
        return None

    async def _connect(self) -> HttpConnection:
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(
            lambda: HttpConnection(self._clock), self._host, self._port, ssl=self._is_tls or None
        )
        return connection


def _find_usage(tail: list[bytes]) -> Usage | None:
    for event in reversed(tail):
        if b'"usage"' not in event:
            continue
        usage = _payload(event).get("usage")
        if isinstance(usage, dict):
            return Usage(int(usage["prompt_tokens"]), int(usage["completion_tokens"]))
    return None


def _find_last(pattern: re.Pattern[bytes], tail: list[bytes]) -> str | None:
    for event in reversed(tail):
        if match := pattern.search(event):
            return match[1].decode()
    return None


def _find_error(tail: list[bytes]) -> str | None:
    for event in tail:
        if b'"error"' in event and (error := _payload(event).get("error")):
            return str(error)
    return None


def _payload(event: bytes) -> dict[str, object]:
    """Parse the `data:` line of an event; an event that is not a JSON object is an empty one."""
    start = event.find(b"data:")
    try:
        payload = json.loads(event[start + 5 :]) if start >= 0 else None
    except ValueError:
        return {}
    return payload if isinstance(payload, dict) else {}
