"""`wheelpit serve` answers from the moment it has its address, and is ready when it says so."""

from __future__ import annotations

import errno
import os
import signal
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.cli.served import Served, Start, announcement
from wheelpit.server.loading import LoadingPage, answering


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    """A FIFO: the fake engine loads until somebody has opened it for writing and closed it."""
    path = tmp_path / "gate"
    os.mkfifo(path)
    return path


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port: int = sock.getsockname()[1]
        return port


def ask(url: str) -> httpx.Response:
    """Ask until there is a listener: from its bind on there always is one."""
    while True:
        try:
            return httpx.get(url, timeout=60)
        except httpx.ConnectError:
            pass


def children_of(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(word) for word in text.split()]


def until_it_loads(process: Served) -> None:
    """Until it has said what comes last before the engine is all that it waits for."""
    assert process.stdout is not None
    while "HTTP stack" not in process.stdout.readline():
        assert process.poll() is None


def test_probes_are_answered_while_the_model_loads(start: Start, gate: Path) -> None:
    port = free_port()
    process = start("--host", "127.0.0.1", "--port", str(port), fails=f"waits:{gate}")
    url = f"http://127.0.0.1:{port}"
    assert ask(f"{url}/health/live").json() == {"live": True}
    until_it_loads(process)
    ready = ask(f"{url}/health/ready")
    assert ready.status_code == 503
    assert ready.json().items() >= {"ready": False, "reason": "loading"}.items()
    assert ready.json()["phase"] in ("config, tokenizer, engine process", "engine: load")
    assert ready.json()["loading_s"] >= 0
    for path in ("/health", "/ping"):
        assert (ask(url + path).status_code, ask(url + path).content) == (503, b"")
    refused = httpx.post(f"{url}/v1/completions", json={"prompt": "x" * 100_000}, timeout=60)
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
    error = refused.json()["error"]
    assert (error["type"], error["code"]) == ("ServiceUnavailableError", 503)
    assert error["reason"] == "loading"
    gate.write_bytes(b"")
    announcement(process)
    # Once it says that it is ready, it is.
    assert ask(f"{url}/health/ready").json() == {"ready": True, "reason": None}
    assert httpx.post(f"{url}/v1/completions", json={"prompt": "x"}, timeout=60).status_code == 200


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_loading_ends_it_in_good_order(
    start: Start,
    gate: Path,
    number: int,
) -> None:
    process = start("--port", "0", fails=f"waits:{gate}")
    until_it_loads(process)
    (engine,) = children_of(process.pid)
    process.send_signal(number)
    _, errors = process.end(timeout=30)
    assert process.returncode == 0, errors
    assert not Path(f"/proc/{engine}").exists()


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield sock


def exchange(sock: socket.socket, request: bytes) -> bytes:
    with socket.create_connection(sock.getsockname(), timeout=60) as client:
        client.sendall(request)
        client.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: client.recv(65536), b""))


def test_who_comes_after_the_end_waits_in_the_socket_for_the_server(
    listener: socket.socket,
) -> None:
    """Nobody is refused, and nobody is told that it loads, once `answering` has returned."""
    with answering(listener, LoadingPage(), None):
        assert exchange(listener, b"GET /health HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.1 503 ")
    with socket.create_connection(listener.getsockname(), timeout=60) as client:
        connection, _ = listener.accept()
        with connection:
            connection.sendall(b"taken")
            assert client.recv(9) == b"taken"


@pytest.mark.parametrize(
    "nonsense",
    [
        b"",
        b"\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/1.1\r\ncontent-length: x\r\n\r\n",
        b"x" * 2**18,
    ],
)
def test_nonsense_is_not_answered_and_breaks_nothing(
    listener: socket.socket, nonsense: bytes
) -> None:
    with answering(listener, LoadingPage(), None):
        try:
            answer = exchange(listener, nonsense)
        except OSError as error:
            if error.errno not in (errno.ECONNRESET, errno.EPIPE, errno.ENOTCONN):
                raise
            answer = b""  # it had sent more than was read: reset, or gone before it had finished
        assert answer == b""
        head = exchange(listener, b"HEAD /health/ready?x HTTP/1.1\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 503 ")
    assert head.endswith(b"\r\n\r\n")
    assert b"retry-after: 1\r\n" in head


def test_it_speaks_tls_where_the_server_will(listener: socket.socket, tmp_path: Path) -> None:
    from tests.server.test_tls import make_certificate

    key, certificate = make_certificate(tmp_path)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)
    with answering(listener, LoadingPage(), tls):
        url = f"https://127.0.0.1:{listener.getsockname()[1]}/health/live"
        context = ssl.create_default_context(cafile=certificate)
        assert httpx.get(url, verify=context, timeout=60).json() == {"live": True}
