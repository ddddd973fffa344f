"""From an exception to its status and its body: the only place that knows HTTP statuses.

Every error body is OpenAI's, `{"error": {"message", "type", "param", "code"}}`, and short: what a
client sent is never echoed at length. The one exception is a missing key, whose body is a plain
`{"error": "Unauthorized"}` as vLLM's clients expect.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from wheelpit.errors import (
    ClientError,
    EngineDeadError,
    NotFoundError,
    OverloadedError,
    ServerError,
    ValidationError,
)

log = logging.getLogger(__name__)

MAX_BODY_BYTES = 4096
MAX_MESSAGE_CHARS = 2000
MAX_PARAM_CHARS = 200

ADDRESS = re.compile(r"(?: at)? 0x[0-9a-fA-F]{6,}")
PATH = re.compile(r"(?<![\w/.:])/(?:[\w.+@-]+/)+[\w.+@-]+")
"""A file's absolute path: at least one folder and a name, not part of a URL."""


class BadBodyError(ClientError):
    """The body is not the JSON that the route takes. `parameter` names the field, if one."""

    def __init__(self, message: str, parameter: str | None = None) -> None:
        super().__init__(message)
        self.parameter = parameter


class BodyTooLargeError(ClientError):
    """The body is longer than the server accepts."""


class ClientGoneError(ClientError):
    """The client closed its connection: nobody is left to answer."""


class UnknownRequestError(ClientError):
    """No request of this id is in flight, or it is somebody else's."""


class DeadlineMissedError(ServerError):
    """A request's time was over before it had a token, and nothing was sent of its answer.

    reason: which deadline it was.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(
            f"no token came before the request's {reason} was over: give it more time, or send it "
            "when there is less work"
        )
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Fault:
    """The status and OpenAI's type name of one kind of error."""

    status: int
    kind: str


BAD_REQUEST = Fault(400, "BadRequestError")
UNAUTHORIZED = Fault(401, "AuthenticationError")
FORBIDDEN = Fault(403, "PermissionDeniedError")
UNKNOWN = Fault(404, "NotFoundError")
WRONG_METHOD = Fault(405, "Method Not Allowed")
INTERNAL = Fault(500, "InternalServerError")
LATE = Fault(504, "GatewayTimeoutError")

HEALTHY, UNHEALTHY = 200, 503

UNAVAILABLE = Fault(503, "ServiceUnavailableError")
OVERLOAD = {429: Fault(429, "RateLimitError"), 503: UNAVAILABLE}
"""What an OverloadedError may be answered with: the operator chooses the status."""

FAULTS: tuple[tuple[tuple[type[Exception], ...], Fault], ...] = (
    ((NotFoundError, UnknownRequestError), UNKNOWN),
    ((BodyTooLargeError,), Fault(413, "RequestTooLargeError")),
    ((BadBodyError,), Fault(400, "Bad Request")),
    ((ClientGoneError,), Fault(499, "ClientClosedRequest")),
    ((NotImplementedError,), Fault(501, "NotImplementedError")),
    ((DeadlineMissedError,), LATE),
    ((ServerError,), INTERNAL),
    ((ClientError, ValueError, TypeError, OverflowError), BAD_REQUEST),
)
"""The first row that matches decides; anything else is INTERNAL."""


def fault_of(error: BaseException, overload_status: int = 429) -> Fault:
    """Classify an exception. overload_status: one of OVERLOAD."""
    if isinstance(error, OverloadedError):
        # Whoever is told that the client sends too much would be told wrong.
        return OVERLOAD[503 if error.reason == "draining" else overload_status]
    for kinds, fault in FAULTS:
        if isinstance(error, kinds):
            return fault
    return INTERNAL


def error_body(error: BaseException, overload_status: int = 429) -> bytes:
    """The JSON that describes an exception."""
    fault = fault_of(error, overload_status)
    more: dict[str, object] = {}
    if isinstance(error, OverloadedError):
        estimate_s = error.estimate_s
        more["reason"] = error.reason
        more["estimate_s"] = None if estimate_s is None else round(estimate_s, 3)
    elif isinstance(error, DeadlineMissedError):
        more["reason"] = error.reason
    return encode_error(_message_of(error), fault, _param_of(error), more)


def encode_error(
    message: str, fault: Fault, param: str | None = None, more: Mapping[str, object] | None = None
) -> bytes:
    """OpenAI's error body, cut to a bearable length. more: further fields of it.

    Of our own faults, no file's path is told: a client's text may well have one in it.
    """
    message = ADDRESS.sub("", message)
    if fault.status >= 500:
        message = PATH.sub("(a file)", message)
    message = message.encode("utf-8", "replace").decode()
    num_chars = MAX_MESSAGE_CHARS
    while True:
        inner: dict[str, Any] = {
            "message": _cut(message, num_chars),
            "type": fault.kind,
            "param": None if param is None else param[: min(MAX_PARAM_CHARS, num_chars)],
            "code": fault.status,
            **(more or {}),
        }
        body = msgspec.json.encode({"error": inner})
        if len(body) <= MAX_BODY_BYTES or num_chars < 64:
            return body
        # Characters of several bytes, or such as are written as escapes.
        num_chars //= 2


def _cut(text: str, num_chars: int) -> str:
    return text if len(text) <= num_chars else text[: num_chars - 3] + "..."


def log_error(error: Exception, place: str) -> None:
    """Our faults with their traceback, the clients' only for debugging."""
    fault = fault_of(error)
    if isinstance(error, OverloadedError | DeadlineMissedError):
        # Not faults: the engine has counted and logged each of them.
        log.debug("%s: %s", place, error)
    elif isinstance(error, EngineDeadError):
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
