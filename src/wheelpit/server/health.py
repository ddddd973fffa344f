"""Four questions to a server, each with an answer of its own; none of them enters a queue.

    /health/live      does the process answer?
    /health/ready     would a request sent now be taken on, and soon? 503 says why not
    /health/progress  how does the engine do, and who has waited longest?
    /health           vLLM's: 503 when the engine is dead or hangs

A proxy asks `ready` and sends work elsewhere for a while; whoever restarts containers asks `live`
or `/health`. While the model loads, `loading.py` answers them.
"""

from __future__ import annotations

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from wheelpit.engine.supervisor import EngineState
from wheelpit.errors import EngineDeadError
from wheelpit.server.auth import principal_of
from wheelpit.server.error_answers import health_response, readiness_response
from wheelpit.server.responses import json_response
from wheelpit.server.served_engine import ServedEngine


class ReadyAnswer(msgspec.Struct):
    """reason: null when it is ready, else "draining", "dead", "restarting", "hanging", "full"."""

    is_ready: bool = msgspec.field(name="ready")
    reason: str | None


class LiveAnswer(msgspec.Struct):
    """Nothing but that the process answers."""

    is_live: bool = msgspec.field(name="live")


class OldestAnswer(msgspec.Struct):
    """See `Unprogressed`. request_id: null for whoever may not know of others' requests."""

    request_id: str | None
    state: str
    age_s: float


class ProgressAnswer(msgspec.Struct, kw_only=True):
    """engine_state: "serving", "waiting" or "loading" between two engines, or "dead".

    heartbeat_age_s: since the engine process last said anything; it is silent when it has nothing
    to do. is_stalled: it has work, and has finished no step for the stall timeout.
    """

    engine_state: str
    heartbeat_age_s: float
    is_stalled: bool
    num_restarts: int
    num_requests: int
    oldest_unprogressed: OldestAnswer | None


class HealthRoutes:
    """Answers from what is known already; never waits for a step."""

    def __init__(self, engine: ServedEngine, *, is_open: bool) -> None:
        """is_open: everybody may know of every request, because nobody has a key."""
        self._engine = engine
        self._is_open = is_open

    async def health(self) -> Response:
        """200 while requests can be served, 503 when the engine is dead or hangs; empty body."""
        try:
            await self._engine.check_health()
        except EngineDeadError:
            return health_response(is_healthy=False)
        return health_response(is_healthy=True)

    async def live(self) -> Response:
        """200: the process answers."""
        return json_response(LiveAnswer(True))

    async def ready(self) -> Response:
        """200 if a request sent now would be taken on and worked at; 503, and why, if not."""
        reason = unreadiness(self._engine)
        answer = msgspec.json.encode(ReadyAnswer(reason is None, reason))
        return readiness_response(answer, is_ready=reason is None)

    async def progress(self, request: Request) -> Response:
        """How the engine does, and which request has waited longest for anything to happen."""
        engine = self._engine
        health = engine.health()
        oldest = engine.oldest_unprogressed()
        shown = None
        if oldest is not None:
            may_know = self._is_open or principal_of(request.scope).is_admin
            request_id = oldest.request_id if may_know else None
            shown = OldestAnswer(request_id, oldest.state, round(oldest.age_s, 3))
        answer = ProgressAnswer(
            engine_state=health.state.value,
            heartbeat_age_s=round(health.heartbeat_age_s, 3),
            is_stalled=health.is_stalled,
            num_restarts=health.num_restarts,
            num_requests=engine.stats().num_requests,
            oldest_unprogressed=shown,
        )
        return json_response(answer)


def unreadiness(engine: ServedEngine) -> str | None:
    """Why a request sent now would not be taken on, or would wait for more than others; or None."""
    if not engine.is_admitting:
        return "draining"
    if engine.errored:
        return "dead"
    health = engine.health()
    if health.state is not EngineState.SERVING:
        return "restarting"
    if health.is_stalled:
        return "hanging"
    return "full" if engine.is_full else None
