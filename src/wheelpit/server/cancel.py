"""POST /v1/requests/{id}/cancel and DELETE /v1/requests/{id}: end a request from outside."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from wheelpit.server.auth import principal_of
from wheelpit.server.responses import CancelAnswer, json_response
from wheelpit.server.service import Service


class CancelRoute:
    """Ends requests in flight by their ids."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def cancel(self, request: Request, request_id: str) -> Response:
        """End a request in flight: its answer is what there is, with finish_reason "abort".

        The id is the answer's or that of X-Request-Id. 404 if nothing of this id is in flight, or
        if it was sent with somebody else's API key.
        """
        cancelled = self._service.live.cancel(request_id, principal_of(request.scope))
        answer = CancelAnswer(id=cancelled[0].request_id, num_cancelled=len(cancelled))
        return json_response(answer)
