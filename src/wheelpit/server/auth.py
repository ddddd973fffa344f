"""API keys: every route but the probes wants one of them, when there are any.

Whose key it was goes with the request as its `Principal`: the tenant that it is served as, and who
may cancel it. Routes below /admin/ want the admin's.

Keys are compared as hashes in constant time, all of them each time, so that neither the time nor
a memory dump of this object tells anything about them.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from starlette.types import ASGIApp, Receive, Scope, Send

from wheelpit.config import require
from wheelpit.server.error_answers import forbidden, unauthorized
from wheelpit.server.root_path import route_path

OPEN_PATHS = frozenset(
    {"/health", "/health/live", "/health/ready", "/health/progress", "/ping", "/version"}
)
ADMIN_PATHS = "/admin/"
SCOPE_KEY = "wheelpit.principal"
PLAIN_NAME = re.compile(r"[\x21-\x7e]{1,64}")


@dataclass(frozen=True, slots=True)
class Principal:
    """Who sent a request, as its key says. name: the tenant; None where no key is asked for."""

    name: str | None
    is_admin: bool = False

    def may_cancel(self, owner: Principal) -> bool:
        """Only what one sent oneself; the admin, whatever anybody sent."""
        return self.is_admin or self.name == owner.name


ANYBODY = Principal(None)
ADMIN = Principal("admin", is_admin=True)


class Keyring:
    """All keys that open something. Keeps their hashes only; never changes."""

    def __init__(
        self, api_keys: Sequence[str], tenant_keys: Mapping[str, str], admin_key: str | None
    ) -> None:
        """tenant_keys: SHA-256 of a key in hex -> its tenant. ConfigError.

        The others are called by their places, "key-1" and so on: names end up in logs.
        """
        owners = {
            _hash(key.encode()): Principal(f"key-{number}")
            for number, key in enumerate(api_keys, start=1)
        }
        owners |= {bytes.fromhex(digest): Principal(name) for digest, name in tenant_keys.items()}
        self.is_open = not owners
        """No key is asked for, except by admin routes."""
        self.has_admin = admin_key is not None
        if admin_key is not None:
            digest = _hash(admin_key.encode())
            require(digest not in owners, "admin_key", "also a client's key", "a key of its own")
            owners[digest] = ADMIN
        self._owners = tuple(owners.items())

    def __len__(self) -> int:
        return len(self._owners)

    @staticmethod
    def digest(key: str) -> str:
        """A key as `tenant_keys` has it."""
        return _hash(key.encode()).hex()

    def owner_of(self, header: bytes) -> Principal | None:
        """Whose key an Authorization header carries; None if it is none of ours."""
        scheme, _, key = header.partition(b" ")
        found = _hash(key.strip())
        owner = None
        # To the end: leaving at the first match would tell where it was.
        for expected, principal in self._owners:
            if hmac.compare_digest(found, expected):
                owner = principal
        return owner if scheme.lower() == b"bearer" else None


class RequireApiKey:
    """ASGI middleware that answers 401 unless `Authorization: Bearer KEY` fits, and says whose."""

    def __init__(self, app: ASGIApp, keyring: Keyring) -> None:
        self._app = app
        self._keyring = keyring

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or scope.get("method") == "OPTIONS":
            await self._app(scope, receive, send)
            return
        path = route_path(scope)
        owner = self._keyring.owner_of(_authorization(scope))
        is_for_admin = self._keyring.has_admin and path.startswith(ADMIN_PATHS)
        if owner is None and not is_for_admin and (self._keyring.is_open or path in OPEN_PATHS):
            owner = ANYBODY
        if owner is None:
            await unauthorized()(scope, receive, send)
        elif is_for_admin and not owner.is_admin:
            await forbidden("this key is not the admin's")(scope, receive, send)
        else:
            scope[SCOPE_KEY] = owner
            await self._app(scope, receive, send)


def principal_of(scope: Scope) -> Principal:
    """Who sent this request; ANYBODY where nothing checks keys."""
    owner: Principal = scope.get(SCOPE_KEY, ANYBODY)
    return owner


def tenant_of(owner: Principal, user: str | None) -> str:
    """Whose request it is for the engine: the key's tenant, else the user that the body names.

    A user's name is shortened to a digest if it is too long or unfit for a line of the log.
    """
    if owner.name is not None or not user:
        return owner.name or ""
    if PLAIN_NAME.fullmatch(user):
        return user
    return f"user-{_hash(user.encode('utf-8', 'replace')).hex()[:16]}"


def _authorization(scope: Scope) -> bytes:
    given = b""
    for name, value in scope["headers"]:
        if name == b"authorization":
            given = value
    return given


def _hash(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()
