"""Where the server listens: bound before the model loads, so that a taken port is told at once."""

from __future__ import annotations

import errno
import os
import socket
import ssl
import stat
from dataclasses import dataclass

from wheelpit.config import require
from wheelpit.errors import WheelpitError

BACKLOG = 2048
"""Connections that the system keeps for us until we take them."""


class ListenError(WheelpitError):
    """The address cannot be listened on; the message is fit to be printed alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listen:
    """Address, TLS and patience of one server."""

    host: str = "0.0.0.0"
    port: int = 8000
    """0 lets the system choose."""
    uds: str | None = None
    """The path of a Unix socket, in place of host and port."""
    ssl_keyfile: str | None = None
    ssl_certfile: str | None = None
    ssl_keyfile_password: str | None = None
    ssl_ca_certs: str | None = None
    ssl_cert_reqs: int = ssl.CERT_NONE
    ssl_ciphers: str = "TLSv1"
    access_log: bool = False
    """Log each request's line, to the logger uvicorn.access."""
    keep_alive_s: int = 5
    shutdown_timeout_s: float = 30.0
    """How long running requests may go on after a signal, before they are aborted."""

    def __post_init__(self) -> None:
        require(0 <= self.port <= 65535, "port", self.port, "in [0, 65535]")
        require(self.keep_alive_s >= 0, "keep_alive_s", self.keep_alive_s, "at least 0")
        require(
            self.shutdown_timeout_s >= 0,
            "shutdown_timeout_s",
            self.shutdown_timeout_s,
            "at least 0",
        )
        require(
            self.ssl_keyfile is None or self.ssl_certfile is not None,
            "ssl_certfile",
            None,
            "given together with ssl_keyfile",
        )

    @property
    def scheme(self) -> str:
        return "http" if self.ssl_certfile is None else "https"


def bind(listen: Listen) -> socket.socket:
    """Take the address; nobody can connect before `serve` listens. Raises ListenError."""
    if listen.uds is not None:
        return _bind_uds(listen.uds)
    try:
        found = socket.getaddrinfo(
            listen.host or None, listen.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except socket.gaierror as error:
        raise ListenError(f"host {listen.host!r} is unknown: {error.strerror}") from error
    family, kind, protocol, _, address = found[0]
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
    except OSError as error:
        sock.close()
        raise listen_error(listen, error) from error
    return sock


def release(listen: Listen) -> None:
    """Remove what a closed server leaves behind: a Unix socket's file."""
    if listen.uds is not None:
        _remove_stale(listen.uds)


def listen_error(listen: Listen, error: OSError) -> ListenError:
    """Say in one line what is wrong with the address and what to do."""
    place = listen.uds or f"{listen.host}:{listen.port}"
    if error.errno == errno.EADDRINUSE and listen.uds is None:
        return ListenError(
            f"port {listen.port} is in use on {listen.host}: stop the other program or pass --port"
        )
    if error.errno == errno.EADDRINUSE:
        return ListenError(f"{place} is in use: stop the other program or pass --uds")
    return ListenError(f"cannot listen on {place}: {error.strerror}")


def url_of(listen: Listen, sock: socket.socket) -> str:
    """The address to show to people, with the real port."""
    if listen.uds is not None:
        return f"unix:{listen.uds}"
    host, port = sock.getsockname()[:2]
    return f"{listen.scheme}://{f'[{host}]' if ':' in host else host}:{port}"


def _bind_uds(path: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _remove_stale(path)
        sock.bind(path)
    except OSError as error:
        sock.close()
        raise listen_error(Listen(uds=path), error) from error
    return sock


def _remove_stale(path: str) -> None:
    """Delete the socket file of a server that is gone: nobody answers it."""
    if not os.path.exists(path) or not stat.S_ISSOCK(os.stat(path).st_mode):
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
