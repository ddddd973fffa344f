"""Streams that outlive their connection: whoever comes back within the window misses nothing.

    POST, X-Resumable: 1 ──> producer ──> EventLog <── reader ──> this connection
                              (a task)        ^
    GET /v1/streams/ID ────────────────────── └────── reader ──> that connection

The producer generates whether or not anybody reads, and numbers each event; readers follow the log,
each from a place of its own. Without a reader for the window's length, the request is cancelled and
its log dropped. A log is kept for as long after the end: who did not hear the end may ask for it.

Memory: the events of resumable requests alone, each bounded by what its request may generate, and
all logs of ended requests together by MAX_ENDED_BYTES, oldest first.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from contextlib import contextmanager

from starlette.requests import Request
from starlette.types import Scope

from wheelpit.errors import ValidationError
from wheelpit.server.auth import Principal
from wheelpit.server.errors import UnknownRequestError

log = logging.getLogger(__name__)

ASKED = (b"x-resumable", b"1")
MAX_ENDED_BYTES = 64 << 20
MAX_ID_DIGITS = 18


class EventLog:
    """One stream's events, numbered from 1. Written only by its producer and its readers."""

    def __init__(
        self, request_id: str, owner: Principal, wait_s: float, comment: Callable[[], bytes]
    ) -> None:
        """request_id: with its prefix. wait_s: the window. comment: what to tell who waits."""
        self.request_id = request_id
        self.owner = owner
        self.wait_s = wait_s
        self.comment = comment
        self.num_bytes = 0
        self.has_ended = False
        self.error: Exception | None = None
        """Why there is no stream at all, to be told by a status."""
        self.has_begun = False
        """Some reader has sent a status: an error is an event from then on."""
        self._events: list[bytes] = []
        self._news = asyncio.Event()

    @property
    def num_events(self) -> int:
        return len(self._events)

    def add(self, piece: bytes) -> None:
        """Number the events of a piece, which ends with one's end, and keep them."""
        for event in piece.split(b"\n\n")[:-1]:
            numbered = b"id: %d\n%s\n\n" % (len(self._events) + 1, event)
            self._events.append(numbered)
            self.num_bytes += len(numbered)
        self._wake()

    def end(self, error: Exception | None = None) -> None:
        """There is no more."""
        self.has_ended, self.error = True, error
        self._wake()

    async def follow(self, last_id: int) -> AsyncGenerator[bytes, None]:
        """Yield what comes after that event, what is there already as one piece; to the end.

        Raises the error that the producer ended with.
        """
        while True:
            # Before looking: what comes later sets the next one.
            news = self._news
            if last_id < len(self._events):
                piece = b"".join(self._events[last_id:])
                last_id = len(self._events)
                yield piece
            elif self.error is not None:
                raise self.error
            elif self.has_ended:
                return
            else:
                await news.wait()

    def _wake(self) -> None:
        self._news.set()
        self._news = asyncio.Event()


Produce = Callable[[EventLog], Coroutine[None, None, None]]
"""Adds all events of a stream to its log; raises what goes wrong."""


class _Kept:
    """A log in the registry: who reads it, and when it goes."""

    def __init__(self, events: EventLog, producer: asyncio.Task[None]) -> None:
        self.events = events
        self.producer = producer
        self.num_readers = 0
        self.timer: asyncio.TimerHandle | None = None


class ResumableStreams:
    """All of one server's. Used on its event loop only."""

    def __init__(self) -> None:
        self._kept: dict[EventLog, _Kept] = {}

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def num_bytes(self) -> int:
        """What all logs take, about."""
        return sum(each.num_bytes for each in self._kept)

    def start(self, events: EventLog, produce: Produce) -> None:
        """Begin to produce; the first reader must come before the next await."""
        task = asyncio.create_task(self._produce(events, produce))
        self._kept[events] = _Kept(events, task)

    @contextmanager
    def reading(self, events: EventLog) -> Iterator[None]:
        """Keep the log while the body runs, and for the window after the last reader left."""
        kept = self._kept[events]
        kept.num_readers += 1
        if kept.timer is not None:
            kept.timer.cancel()
        try:
            yield
        finally:
            kept.num_readers -= 1
            if kept.num_readers == 0 and events in self._kept:
                loop = asyncio.get_running_loop()
                kept.timer = loop.call_later(events.wait_s, self._drop, events)
                self._make_room()

    def find(self, name: str, by: Principal) -> EventLog:
        """The newest stream of this id that `by` has sent; UnknownRequestError if there is none.

        name: as in answers, or as the client chose it, without the prefix.
        """
        mine = [each for each in self._kept if by.may_cancel(each.owner)]
        found = [each for each in mine if each.request_id == name]
        found = found or [each for each in mine if each.request_id.partition("-")[2] == name]
        if not found:
            raise UnknownRequestError(
                f"no stream {name[:100]!r} can be resumed: it may not have been resumable, be over "
                "for too long, or be another's"
            )
        return found[-1]

    async def close(self) -> None:
        """Cancel whatever is still produced, and forget all logs."""
        kept = list(self._kept.values())
        for each in kept:
            self._drop(each.events)
        await asyncio.gather(*(each.producer for each in kept), return_exceptions=True)

    async def _produce(self, events: EventLog, produce: Produce) -> None:
        try:
            await produce(events)
        except Exception as error:
            # Not swallowed: each reader raises it.
            events.end(error)
        else:
            events.end()
        self._make_room()

    def _drop(self, dropped: EventLog) -> None:
        kept = self._kept.pop(dropped)
        if kept.timer is not None:
            kept.timer.cancel()
        if not kept.producer.done():
            log.info("request %s: nobody came back to its stream", dropped.request_id)
            # Ends the request where it is.
            kept.producer.cancel()

    def _make_room(self) -> None:
        """Drop ended logs that nobody reads, oldest first, until they take what they may."""
        idle = [k.events for k in self._kept.values() if k.events.has_ended and not k.num_readers]
        size = sum(each.num_bytes for each in idle)
        for oldest in idle:
            if size <= MAX_ENDED_BYTES:
                return
            size -= oldest.num_bytes
            self._drop(oldest)


def is_asked_for(scope: Scope) -> bool:
    """Does a request want to be resumable?"""
    return ASKED in ((name, value.strip()) for name, value in scope["headers"])


def last_event_id(request: Request, stream: EventLog) -> int:
    """The number of the last event that a client has; 0 if it has none. ValidationError."""
    text = request.headers.get("last-event-id", "0")
    if not (text.isascii() and text.isdigit() and len(text) <= MAX_ID_DIGITS):
        raise ValidationError(
            "Last-Event-ID is not a whole number: send the id of the last event that you have",
            parameter="Last-Event-ID",
            value=text,
        )
    if int(text) > stream.num_events:
        raise ValidationError(
            f"the stream has {stream.num_events} events so far, the last one you have is {text}: "
            "is it another stream's?",
            parameter="Last-Event-ID",
            value=text,
        )
    return int(text)
