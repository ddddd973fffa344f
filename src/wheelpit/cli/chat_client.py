"""ChatClient: the few calls that a terminal chat makes to an OpenAI-compatible server.

Blocking, on the standard library alone. Closing the connection in the middle of an answer is how
the server learns that nobody wants the rest of it.
"""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from wheelpit.errors import ClientError, ConfigError, ServerError

CONNECT_TIMEOUT_S = 10.0


class ChatClient:
    """Talk to one server; each call is a connection of its own."""

    def __init__(self, url: str, api_key: str | None = None) -> None:
        """url: the server's, with or without /v1. Raises ConfigError if it is not http(s)."""
        parts = urlsplit(url if "://" in url else f"http://{url}")
        try:
            port = parts.port
        except ValueError:
            port = -1
        if parts.scheme not in ("http", "https") or not parts.hostname or port == -1:
            raise ConfigError(f"--url is {url!r}, must be like http://127.0.0.1:8000")
        self.url = f"{parts.scheme}://{parts.netloc}{parts.path}".rstrip("/").removesuffix("/v1")
        self._is_tls = parts.scheme == "https"
        self._host = parts.hostname
        self._port = port
        self._path = parts.path.rstrip("/").removesuffix("/v1")
        self._headers = {"Content-Type": "application/json"}
        if api_key:
            self._headers["Authorization"] = f"Bearer {api_key}"

    def model_names(self) -> list[str]:
        """Return the names that the server answers to."""
        with self._send("GET", "/v1/models", None) as response:
            try:
                return [str(card["id"]) for card in json.loads(response.read())["data"]]
            except (ValueError, KeyError, TypeError) as error:
                raise ServerError(
                    f"{self.url} is not an OpenAI-compatible server: its list of models is "
                    "not understood"
                ) from error

    def stream_chat(self, body: Mapping[str, Any]) -> Iterator[str]:
        """Yield the pieces of an answer as they come. Closing the iterator ends the request."""
        with self._send("POST", "/v1/chat/completions", {**body, "stream": True}) as response:
            for event in _events(response):
                error = event.get("error")
                if error:
                    raise ServerError(f"the server broke off: {_message_of(event)}")
                for choice in event.get("choices") or ():
                    piece = (choice.get("delta") or {}).get("content")
                    if piece:
                        yield str(piece)

    @contextmanager
    def _send(
        self, method: str, path: str, body: Mapping[str, Any] | None
    ) -> Iterator[http.client.HTTPResponse]:
        kind = http.client.HTTPSConnection if self._is_tls else http.client.HTTPConnection
        connection = kind(self._host, self._port, timeout=CONNECT_TIMEOUT_S)
        data = None if body is None else json.dumps(body).encode()
        try:
            connection.connect()
            # A long queue is no reason to give up: from here on only Ctrl-C ends the waiting.
            connection.sock.settimeout(None)
            connection.request(method, self._path + path, data, self._headers)
            response = connection.getresponse()
            if response.status != 200:
                raise self._refusal(response)
            yield response
        except (OSError, http.client.HTTPException) as error:
            raise ServerError(self._unreachable(error)) from error
        finally:
            connection.close()

    def _refusal(self, response: http.client.HTTPResponse) -> ClientError | ServerError:
        text = response.read(100_000)
        try:
            message = _message_of(json.loads(text))
        except ValueError:
            message = text.decode("utf-8", "replace")[:200] or response.reason
        if response.status == 401:
            return ClientError(
                f"{self.url} wants an API key: give --api-key or set WHEELPIT_API_KEY"
            )
        kind = ClientError if response.status < 500 else ServerError
        return kind(f"{self.url} answered {response.status}: {message}")

    def _unreachable(self, error: Exception) -> str:
        if isinstance(error, ConnectionRefusedError):
            return (
                f"no server is listening at {self.url}: start one with `wheelpit serve`, or name "
                "another with --url"
            )
        if isinstance(error, socket.gaierror):
            return f"the host of {self.url} is not known: {error.strerror}"
        if isinstance(error, http.client.HTTPException | ConnectionResetError):
            return f"{self.url} closed the connection in the middle of an answer"
        return f"cannot reach {self.url}: {error}"


def _events(response: http.client.HTTPResponse) -> Iterator[dict[str, Any]]:
    """Yield the JSON of each server-sent event until [DONE]."""
    while line := response.readline():
        if not line.startswith(b"data:"):
            continue
        data = line[5:].strip()
        if data == b"[DONE]":
            return
        try:
            event = json.loads(data)
        except ValueError as error:
            raise ServerError("the server sent an event that is not JSON") from error
        if isinstance(event, dict):
            yield event
    raise ServerError("the server closed the connection in the middle of an answer")


def _message_of(body: object) -> str:
    """Find the text in an OpenAI-style error body."""
    error = body.get("error", body) if isinstance(body, dict) else body
    if isinstance(error, dict):
        error = error.get("message", error)
    text = " ".join(str(error).split())
    return text if len(text) <= 500 else text[:497] + "..."
