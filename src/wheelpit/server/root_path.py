"""The prefix of a proxy in front of the server, whether the proxy strips it or leaves it."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send


class SetRootPath:
    """ASGI middleware that tells the router which prefix to disregard."""

    def __init__(self, app: ASGIApp, root_path: str) -> None:
        self._app = app
        self._root_path = root_path.rstrip("/")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app({**scope, "root_path": self._root_path}, receive, send)


def route_path(scope: Scope) -> str:
    """The path as routes see it, without root_path."""
    path: str = scope["path"]
    root_path: str = scope.get("root_path", "").rstrip("/")
    if root_path and path.startswith(root_path + "/"):
        return path[len(root_path) :]
    return path
