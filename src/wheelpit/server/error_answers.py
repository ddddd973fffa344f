"""From an error to the answer that reports it, and the boundary where every error becomes one."""

from __future__ import annotations

import logging
import math
from http import HTTPStatus

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from wheelpit.errors import OverloadedError
from wheelpit.server.errors import (
    FORBIDDEN,
    HEALTHY,
    MAX_PARAM_CHARS,
    UNAUTHORIZED,
    UNHEALTHY,
    UNKNOWN,
    WRONG_METHOD,
    ClientGoneError,
    DeadlineMissedError,
    Fault,
    encode_error,
    error_body,
    fault_of,
    log_error,
)

log = logging.getLogger(__name__)


class FaultBoundary:
    """ASGI middleware: whatever the routes raise becomes an answer, and the server goes on."""

    def __init__(self, app: ASGIApp, overload_status: int) -> None:
        """overload_status: what an OverloadedError is answered with."""
        self._app = app
        self._overload_status = overload_status

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        has_started = False

        async def watched_send(message: Message) -> None:
            nonlocal has_started
            has_started = True
            await send(message)

        try:
            await self._app(scope, receive, watched_send)
        except ClientGoneError:
            log.debug("the client of %s is gone", scope["path"])
        except Exception as error:
            log_error(error, scope["path"])
            if has_started:
                raise
            await error_response(error, self._overload_status)(scope, receive, send)


def error_response(error: BaseException, overload_status: int) -> Response:
    """The whole answer for an exception raised before anything was sent."""
    status = fault_of(error, overload_status).status
    response = _json(status, error_body(error, overload_status))
    if isinstance(error, OverloadedError):
        response.headers["Retry-After"] = str(max(1, math.ceil(error.retry_after_s)))
    if isinstance(error, DeadlineMissedError):
        # OpenAI's clients would send it again, but the time that its caller had for it is over.
        response.headers["x-should-retry"] = "false"
    return response


def unauthorized() -> Response:
    """The answer to a missing or wrong API key."""
    response = _json(UNAUTHORIZED.status, b'{"error":"Unauthorized"}')
    response.headers["WWW-Authenticate"] = "Bearer"
    return response


def forbidden(message: str) -> Response:
    """The answer to a key that is known, and not enough."""
    return _json(FORBIDDEN.status, encode_error(message, FORBIDDEN))


def health_response(*, is_healthy: bool) -> Response:
    """Empty, 200 or 503."""
    return Response(status_code=HEALTHY if is_healthy else UNHEALTHY)


def readiness_response(answer: bytes, *, is_ready: bool) -> Response:
    """The given JSON, with 200 or 503."""
    return _json(HEALTHY if is_ready else UNHEALTHY, answer)


async def answer_http_exception(request: Request, error: Exception) -> Response:
    """Put the framework's own errors (unknown route, wrong method) into OpenAI's shape."""
    assert isinstance(error, HTTPException), error
    fault = Fault(error.status_code, HTTPStatus(error.status_code).phrase)
    path = request.scope["path"][:MAX_PARAM_CHARS]
    detail = str(error.detail)
    if error.status_code == UNKNOWN.status:
        fault, detail = UNKNOWN, f"there is no route {path!r} here"
    elif error.status_code == WRONG_METHOD.status:
        detail = f"{path!r} does not accept {request.method[:20]}"
    response = _json(fault.status, encode_error(detail, fault))
    response.headers.update(error.headers or {})
    return response


def _json(status: int, body: bytes) -> Response:
    return Response(body, status_code=status, media_type="application/json")
