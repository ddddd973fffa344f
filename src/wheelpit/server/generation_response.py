"""GenerationResponse: admit one request, run it, send its answer, and leave nothing behind.

reserve ── prepare (template, tokenizer) ── generate ── send
   │            └─ the client leaves, or anybody cancels: every seat is free at once ─┘
   └─ refused: 429 or 503, before anything was spent
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from typing import Protocol

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from wheelpit.engine.arrival import Arrival, Timeouts
from wheelpit.errors import ClientError
from wheelpit.request import RequestOutput
from wheelpit.server.auth import Principal
from wheelpit.server.disconnect import StopOnDisconnect
from wheelpit.server.errors import ClientGoneError, error_body, log_error
from wheelpit.server.event_sender import EventSender
from wheelpit.server.generation import EngineCall, raise_if_late, run, run_whole
from wheelpit.server.live_requests import LiveRequest
from wheelpit.server.protocol import GenerationFields
from wheelpit.server.request_id import request_id_of
from wheelpit.server.responses import json_response
from wheelpit.server.resumable import EventLog, is_asked_for
from wheelpit.server.resume import FollowResponse
from wheelpit.server.service import Service
from wheelpit.server.sse import DONE
from wheelpit.server.stream import StreamPlan, events

log = logging.getLogger(__name__)


class Answer(Protocol):
    """Puts the engine's outputs into the shapes of one route."""

    def whole(self, finals: list[RequestOutput]) -> object: ...

    def stream_plan(self) -> StreamPlan: ...


@dataclass(frozen=True, slots=True)
class Prepared:
    """What goes to the engine, and what becomes of what it says."""

    calls: list[EngineCall]
    answer: Answer


@dataclass(frozen=True, slots=True)
class Job:
    """One HTTP request to generate, read and not yet checked."""

    request_id: str
    """With its prefix, as answers show it."""
    body: GenerationFields
    owner: Principal
    tenant: str
    arrival_time: float
    """Seconds since the epoch."""
    places: Sequence[tuple[str, int]]
    """Of each prompt: the engine's id for it, and about how many tokens it has."""
    prepare: Callable[[], Awaitable[Prepared]]
    """Checks it, and does what costs something: chat template, tokenizing. ClientError."""


class GenerationResponse(Response):
    """Does the job when it is called: the framework calls every response that a route returns."""

    def __init__(self, service: Service, job: Job) -> None:
        # Not calling Response.__init__: it would declare a content length.
        self.background = None
        self._service = service
        self._job = job

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        live = reserve(self._service, self._job)
        window_s = self._service.options.resume_window_s
        if self._job.body.stream and window_s > 0 and is_asked_for(scope):
            await self._resumable(live, window_s)(scope, receive, send)
            return
        with self._service.live.hold(live):
            if self._job.body.stream:
                await self._stream(live, scope, receive, send)
            else:
                async with StopOnDisconnect(receive):
                    response = await self._whole(live)
                await response(scope, receive, send)

    async def _whole(self, live: LiveRequest) -> Response:
        prepared = await self._job.prepare()
        finals = await run_whole(live, prepared.calls)
        raise_if_late(finals)
        return json_response(prepared.answer.whole(finals))

    async def _stream(self, live: LiveRequest, scope: Scope, receive: Receive, send: Send) -> None:
        sender = EventSender(send, lambda: self._comment(live), self._service.options.keep_alive_s)
        async with StopOnDisconnect(receive):
            # What is wrong with a prompt is told by a status, so not a word before that is known.
            prepared = await self._job.prepare()
            plan = prepared.answer.stream_plan()
            stream = events(run(live, prepared.calls), plan, lambda: sender.has_begun)
            async with sender, aclosing(stream) as pieces:
                try:
                    async for piece in pieces:
                        await sender.send(piece)
                except Exception as error:
                    if not sender.has_begun:
                        raise
                    log_error(error, scope["path"])
                    await sender.send(b"data: " + error_body(error) + b"\n\n" + DONE)
        await sender.end()

    def _resumable(self, live: LiveRequest, window_s: float) -> Response:
        """Start to generate, whether or not anybody listens; returns what listens first."""

        async def produce(log: EventLog) -> None:
            with self._service.live.hold(live):
                prepared = await self._job.prepare()
                plan = prepared.answer.stream_plan()
                stream = events(run(live, prepared.calls), plan, lambda: log.has_begun)
                async with aclosing(stream) as pieces:
                    async for piece in pieces:
                        log.add(piece)

        job = self._job
        log = EventLog(job.request_id, job.owner, window_s, lambda: self._comment(live))
        self._service.streams.start(log, produce)
        return FollowResponse(self._service, log, 0)

    def _comment(self, live: LiveRequest) -> bytes:
        """How far a request has got that has had no output for a while.

        Of several prompts the first tells: none goes before it.
        """
        progress = self._service.engine.progress(live.engine_ids[0])
        if progress is None or progress.position is None:
            return b": keep-alive\n\n"
        eta = "" if progress.eta_s is None else f" eta_ms={round(1000 * progress.eta_s)}"
        return f": queued position={progress.position}{eta}\n\n".encode()


@contextmanager
def reading(request: Request) -> Iterator[None]:
    """Note a request that cannot even be read: nothing but its id is known of it."""
    try:
        yield
    except ClientGoneError:
        raise
    except ClientError:
        log.info("request %s: refused (malformed)", request_id_of(request.scope))
        raise


def reserve(service: Service, job: Job) -> LiveRequest:
    """Get a place for every prompt, or none for any: OverloadedError."""
    body = job.body
    timeouts = Timeouts(body.timeout, body.queue_timeout, body.ttft_timeout)
    arrival = Arrival(job.request_id, job.tenant, body.priority, job.arrival_time, timeouts)
    reservations = service.engine.reserve_all(arrival, job.places, max(1, body.n or 1))
    return LiveRequest(service.engine, job.request_id, job.owner, reservations)
