"""One id for a request everywhere: header in, body, engine, log, header out."""

from __future__ import annotations

import re
import uuid

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from wheelpit.errors import ValidationError

HEADER = b"x-request-id"
SCOPE_KEY = "wheelpit.request_id"
MAX_CHARS = 256
ALLOWED = re.compile(rf"[\x21-\x7e]{{1,{MAX_CHARS}}}")


class RequestId:
    """The id of one HTTP request; written by the middleware, then by `choose_request_id`."""

    __slots__ = ("from_header", "value")

    def __init__(self, from_header: str | None) -> None:
        """from_header: what the client sent, unchecked; None if nothing."""
        self.from_header = from_header
        is_usable = from_header is not None and ALLOWED.fullmatch(from_header)
        self.value = from_header if from_header is not None and is_usable else uuid.uuid4().hex


class AssignRequestId:
    """ASGI middleware: give each request its id and answer with it."""

    def __init__(self, app: ASGIApp, *, echo: bool) -> None:
        self._app = app
        self._echo = echo

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = None
        for name, value in scope["headers"]:
            if name == HEADER:
                given = value.decode("latin-1")
        request_id = scope[SCOPE_KEY] = RequestId(given)

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                header = (HEADER, request_id.value.encode())
                message = {**message, "headers": [*message.get("headers", ()), header]}
            await send(message)

        await self._app(scope, receive, send_with_id if self._echo else send)


def request_id_of(scope: Scope) -> str:
    """The id as known so far."""
    request_id: RequestId = scope[SCOPE_KEY]
    return request_id.value


def choose_request_id(request: Request, from_body: str | None) -> str:
    """The header's id, else the body's, else a random one. ValidationError for an unusable one."""
    request_id: RequestId = request.scope[SCOPE_KEY]
    _check(request_id.from_header, "X-Request-Id")
    if request_id.from_header is None and from_body is not None:
        _check(from_body, "request_id")
        request_id.value = from_body
    return request_id.value


def _check(given: str | None, name: str) -> None:
    if given is not None and not ALLOWED.fullmatch(given):
        raise ValidationError(
            f"{name} must be 1 to {MAX_CHARS} visible ASCII characters, got {len(given)} "
            "characters" + ("" if len(given) > MAX_CHARS else " with others among them"),
            parameter=name,
        )
