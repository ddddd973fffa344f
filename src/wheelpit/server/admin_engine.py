"""GET /admin/engine and POST /admin/restart-engine: the engine process, shown and replaced."""

from __future__ import annotations

import msgspec
from starlette.responses import Response

from wheelpit.server.responses import json_response
from wheelpit.server.service import Service


class EngineAnswer(msgspec.Struct, kw_only=True):
    """pid: of the engine process; null between two, and of one that is just being made.
    state: as in /health/progress.
    """

    pid: int | None
    state: str
    num_restarts: int
    heartbeat_age_s: float
    is_stalled: bool
    num_requests: int
    dtype: str
    device: str


class AdminEngineRoutes:
    """Shows and replaces the engine process. Only there with an admin key (`auth.py`)."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def engine(self) -> Response:
        """The engine process at present."""
        return json_response(self._described())

    async def restart(self) -> Response:
        """Replace the engine process; to requests it is a pause. Answers with what is then.

        If it is being replaced at the moment, another replacement begins only if that one loads
        already. Not counted as a failure.
        """
        self._service.engine.restart_engine("asked to over HTTP")
        return json_response(self._described())

    def _described(self) -> EngineAnswer:
        engine = self._service.engine
        health, ready = engine.health(), engine.ready
        return EngineAnswer(
            pid=engine.engine_pid,
            state=health.state.value,
            num_restarts=health.num_restarts,
            heartbeat_age_s=round(health.heartbeat_age_s, 3),
            is_stalled=health.is_stalled,
            num_requests=engine.stats().num_requests,
            dtype=ready.dtype,
            device=ready.device,
        )
