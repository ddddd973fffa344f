"""A client that sends a request and reads, or does not read, byte by byte; and that may leave."""

from __future__ import annotations

import json
import socket
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import httpx

from tests.server.conftest import RunningServer


class RawClient:
    """One connection with one request on it. `received` is everything read so far, head and all."""

    def __init__(
        self, running: RunningServer, path: str, body: dict[str, Any], headers: dict[str, str]
    ) -> None:
        host, port = running.url.removeprefix("http://").split(":")
        data = json.dumps(body).encode()
        lines = {"host": "x", "content-type": "application/json", **headers}
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        self.received = b""
        self._sock = socket.create_connection((host, int(port)), timeout=60)
        self._sock.sendall(
            f"POST {path} HTTP/1.1\r\n{head}content-length: {len(data)}\r\n"
            "connection: close\r\n\r\n".encode()
            + data
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.leave()

    def leave(self) -> None:
        """Close the connection, whatever is still to come."""
        self._sock.close()

    def read_until(self, part: bytes) -> bytes:
        """Read until this part is among what was received; return all of that."""
        while part not in self.received:
            data = self._sock.recv(65536)
            assert data, self.received
            self.received += data
        return self.received

    def answer(self) -> httpx.Response:
        """Read to the end."""
        while data := self._sock.recv(65536):
            self.received += data
        head, _, body = self.received.partition(b"\r\n\r\n")
        status, *lines = head.decode("latin-1").split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines)
        if headers.pop("transfer-encoding", "") == "chunked":
            body = _dechunk(body)
        return httpx.Response(int(status.split()[1]), headers=headers, content=body)


def complete(
    running: RunningServer, headers: dict[str, str] | None = None, **fields: Any
) -> RawClient:
    """Send a completion of 200 tokens that no stop token ends."""
    body = {"prompt": "hello", "max_tokens": 200, "ignore_eos": True, **fields}
    return RawClient(running, "/v1/completions", body, headers or {})


def stream(
    running: RunningServer, headers: dict[str, str] | None = None, **fields: Any
) -> RawClient:
    """Likewise as a stream, of which every token is a chunk."""
    return complete(running, headers, stream=True, return_token_ids=True, **fields)


def chat(running: RunningServer, headers: dict[str, str] | None = None, **fields: Any) -> RawClient:
    """Send a conversation."""
    body = {
        "messages": [{"role": "user", "content": "hi"}],
        "max_tokens": 200,
        "ignore_eos": True,
        **fields,
    }
    return RawClient(running, "/v1/chat/completions", body, headers or {})


FIRST_TOKEN = b'"token_ids":['


def cancel(running: RunningServer, name: str, **headers: str) -> httpx.Response:
    """Cancel a request by its id."""
    return running.client.post(f"/v1/requests/{quote(name)}/cancel", headers=headers)


def _dechunk(data: bytes) -> bytes:
    body = b""
    while data:
        size, _, rest = data.partition(b"\r\n")
        length = int(size, 16)
        body, data = body + rest[:length], rest[length + 2 :]
        if length == 0:
            break
    return body
