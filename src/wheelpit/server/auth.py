"""API keys: every route but the probes wants one of them, when there are any.

Keys are compared as hashes in constant time, all of them each time, so that neither the time nor
a memory dump of this object tells anything about them.
"""

from __future__ import annotations

import hashlib
import hmac

from starlette.types import ASGIApp, Receive, Scope, Send

from wheelpit.server.errors import unauthorized
from wheelpit.server.root_path import route_path

OPEN_PATHS = frozenset({"/health", "/ping", "/version"})


class RequireApiKey:
    """ASGI middleware that answers 401 unless `Authorization: Bearer KEY` fits."""

    def __init__(self, app: ASGIApp, api_keys: tuple[str, ...]) -> None:
        self._app = app
        self._hashes = tuple(_hash(key.encode()) for key in api_keys)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_open = scope["type"] == "lifespan" or (
            scope["type"] == "http"
            and (scope["method"] == "OPTIONS" or route_path(scope) in OPEN_PATHS)
        )
        if is_open or self._fits(scope):
            await self._app(scope, receive, send)
        else:
            await unauthorized()(scope, receive, send)

    def _fits(self, scope: Scope) -> bool:
        given = b""
        for name, value in scope["headers"]:
            if name == b"authorization":
                given = value
        scheme, _, key = given.partition(b" ")
        found = _hash(key.strip())
        # Not any(): it would stop at the first match.
        matches = [hmac.compare_digest(found, expected) for expected in self._hashes]
        return scheme.lower() == b"bearer" and True in matches


def _hash(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()
