"""Send a resumable stream's events, from the beginning or from where a client has lost it."""

from __future__ import annotations

from contextlib import aclosing

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from wheelpit.server.auth import principal_of
from wheelpit.server.disconnect import StopOnDisconnect
from wheelpit.server.errors import error_body, log_error
from wheelpit.server.event_sender import EventSender
from wheelpit.server.resumable import EventLog, last_event_id
from wheelpit.server.service import Service
from wheelpit.server.sse import DONE


class ResumeRoute:
    """GET /v1/streams/{request_id}."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def resume(self, request: Request, request_id: str) -> Response:
        """What came after the event that Last-Event-ID names, then the rest as it comes.

        For streams that were asked for with `X-Resumable: 1`, by whoever sent them. The id is the
        answer's or that of X-Request-Id. 404 if there is none, or if its window is over.
        """
        events = self._service.streams.find(request_id, principal_of(request.scope))
        return FollowResponse(self._service, events, last_event_id(request, events))


class FollowResponse(Response):
    """One connection that reads one log. The stream goes on without it."""

    def __init__(self, service: Service, events: EventLog, last_id: int) -> None:
        # Not calling Response.__init__: it would declare a content length.
        self.background = None
        self._service = service
        self._events = events
        self._last_id = last_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        events = self._events
        window = (b"x-resumable", b"%g" % events.wait_s)
        interval_s = self._service.options.keep_alive_s
        sender = EventSender(send, self._comment, interval_s, (window,))
        with self._service.streams.reading(events):
            async with StopOnDisconnect(receive):
                async with sender, aclosing(events.follow(self._last_id)) as pieces:
                    try:
                        async for piece in pieces:
                            events.has_begun = True
                            await sender.send(piece)
                    except Exception as error:
                        if not sender.has_begun:
                            raise
                        log_error(error, scope["path"])
                        await sender.send(b"data: " + error_body(error) + b"\n\n" + DONE)
                # Nothing came after the last event that the client has.
                if not sender.has_begun:
                    await sender.send(b": this was all\n\n")
            await sender.end()

    def _comment(self) -> bytes:
        self._events.has_begun = True
        return self._events.comment()
