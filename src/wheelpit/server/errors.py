"""From an exception to the answer that reports it: the only place that knows HTTP statuses.

Every error body is OpenAI's, `{"error": {"message", "type", "param", "code"}}`, and short: what a
client sent is never echoed at length. The one exception is a missing key, whose body is a plain
`{"error": "Unauthorized"}` as vLLM's clients expect.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from wheelpit.errors import (
    ClientError,
    EngineDeadError,
    NotFoundError,
    ServerError,
    ValidationError,
)

log = logging.getLogger(__name__)

MAX_MESSAGE_CHARS = 2000
MAX_PARAM_CHARS = 200

ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


class BadBodyError(ClientError):
    """The body is not the JSON that the route takes. `parameter` names the field, if one."""

    def __init__(self, message: str, parameter: str | None = None) -> None:
        super().__init__(message)
        self.parameter = parameter


class BodyTooLargeError(ClientError):
    """The body is longer than the server accepts."""


class ClientGoneError(ClientError):
    """The client closed its connection: nobody is left to answer."""


@dataclass(frozen=True, slots=True)
class Fault:
    """The status and OpenAI's type name of one kind of error."""

    status: int
    kind: str


BAD_REQUEST = Fault(400, "BadRequestError")
INTERNAL = Fault(500, "InternalServerError")

FAULTS: tuple[tuple[tuple[type[Exception], ...], Fault], ...] = (
    ((NotFoundError,), Fault(404, "NotFoundError")),
    ((BodyTooLargeError,), Fault(413, "RequestTooLargeError")),
    ((BadBodyError,), Fault(400, "Bad Request")),
    ((ClientGoneError,), Fault(499, "ClientClosedRequest")),
    ((NotImplementedError,), Fault(501, "NotImplementedError")),
    ((ServerError,), INTERNAL),
    ((ClientError, ValueError, TypeError, OverflowError), BAD_REQUEST),
)
"""The first row that matches decides; anything else is INTERNAL."""


def fault_of(error: BaseException) -> Fault:
    """Classify an exception."""
    for kinds, fault in FAULTS:
        if isinstance(error, kinds):
            return fault
    return INTERNAL


def error_body(error: BaseException) -> bytes:
    """The JSON that describes an exception."""
    fault = fault_of(error)
    return _encode(_message_of(error), fault.kind, _param_of(error), fault.status)


def error_response(error: BaseException) -> Response:
    """The whole answer for an exception raised before anything was sent."""
    return _json(fault_of(error).status, error_body(error))


def unauthorized() -> Response:
    """The answer to a missing or wrong API key."""
    response = _json(401, b'{"error":"Unauthorized"}')
    response.headers["WWW-Authenticate"] = "Bearer"
    return response


def health_response(*, is_healthy: bool) -> Response:
    """Empty, 200 or 503."""
    return Response(status_code=200 if is_healthy else 503)


async def answer_http_exception(request: Request, error: Exception) -> Response:
    """Put the framework's own errors (unknown route, wrong method) into OpenAI's shape."""
    assert isinstance(error, HTTPException), error
    phrase = HTTPStatus(error.status_code).phrase
    path = request.scope["path"][:MAX_PARAM_CHARS]
    detail = str(error.detail)
    if error.status_code == 404:
        detail = f"there is no route {path!r} here"
    elif error.status_code == 405:
        detail = f"{path!r} does not accept {request.method[:20]}"
    kind = {404: "NotFoundError"}.get(error.status_code, phrase)
    response = _json(error.status_code, _encode(detail, kind, None, error.status_code))
    response.headers.update(error.headers or {})
    return response


class FaultBoundary:
    """ASGI middleware: whatever the routes raise becomes an answer, and the server goes on."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

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
            await error_response(error)(scope, receive, send)


def log_error(error: Exception, place: str) -> None:
    """Our faults with their traceback, the clients' only for debugging."""
    fault = fault_of(error)
    if isinstance(error, EngineDeadError):
        log.error("%s: %s", place, error)
    elif fault.status >= 500:
        log.error("%s failed", place, exc_info=error)
    else:
        log.debug("%s: %s", place, _message_of(error), exc_info=error)


def _message_of(error: BaseException) -> str:
    if isinstance(error, ValidationError):
        return error.message
    if isinstance(error, EngineDeadError) and error.__cause__ is not None:
        # Its own message points to a log that the client cannot see.
        return f"the engine is dead: {error.__cause__}"
    is_ours = type(error).__module__.startswith("wheelpit.") or fault_of(error).status < 500
    if is_ours and str(error):
        return str(error)
    return "something went wrong in the server; its log has the details"


def _param_of(error: BaseException) -> str | None:
    if isinstance(error, (ValidationError, BadBodyError)):
        return error.parameter
    return "model" if isinstance(error, NotFoundError) else None


def _encode(message: str, kind: str, param: str | None, code: int) -> bytes:
    message = ADDRESS.sub("", message)
    if len(message) > MAX_MESSAGE_CHARS:
        message = message[: MAX_MESSAGE_CHARS - 3] + "..."
    inner: dict[str, Any] = {
        "message": message.encode("utf-8", "replace").decode(),
        "type": kind,
        "param": None if param is None else param[:MAX_PARAM_CHARS],
        "code": code,
    }
    return msgspec.json.encode({"error": inner})


def _json(status: int, body: bytes) -> Response:
    return Response(body, status_code=status, media_type="application/json")
