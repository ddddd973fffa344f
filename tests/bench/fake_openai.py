"""A tiny OpenAI server on a real socket: answers, pauses and failures are scripted by a test."""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Answer:
    """One scripted response: `chunks` are texts, each sent on its own after `gap_s`."""

    chunks: Sequence[str] = ("a", "b", "c")
    num_tokens: int | None = None
    gap_s: float = 0.0
    status: int = 200
    sends_usage: bool = True
    stream_error: str | None = None
    breaks_off: bool = False
    split_at: int | None = None
    line_end: str = "\n"
    retry_after: str | None = None
    reason: str | None = None
    finish_reason: str = "length"
    stop_reason: str | None = None
    comments: Sequence[str] = ()


@dataclass
class FakeOpenAI:
    """Serves `answers` in turn (the last one again and again) and keeps every request body."""

    answers: list[Answer] = field(default_factory=lambda: [Answer()])
    takes_ids: bool = True
    has_tokenize: bool = True
    requests: list[dict[str, Any]] = field(default_factory=list)
    authorizations: list[str | None] = field(default_factory=list)
    num_connections: int = 0
    max_in_flight: int = 0
    url: str = ""
    _in_flight: int = 0
    _server: asyncio.Server | None = None

    async def __aenter__(self) -> "FakeOpenAI":
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        host, port = self._server.sockets[0].getsockname()
        self.url = f"http://{host}:{port}"
        return self

    async def __aexit__(self, *exc: object) -> None:
        assert self._server is not None
        self._server.close()

    @property
    def generations(self) -> list[dict[str, Any]]:
        """Bodies of the requests to generate, probes included."""
        return [body for body in self.requests if "max_tokens" in body]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.num_connections += 1
        try:
            while head := (await reader.readuntil(b"\r\n\r\n")).decode():
                path = head.split(" ", 2)[1]
                headers = dict(
                    line.lower().split(": ", 1) for line in head.split("\r\n")[1:] if line
                )
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                self.authorizations.append(headers.get("authorization"))
                await self._respond(writer, path, json.loads(body) if body else {})
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _respond(self, writer: asyncio.StreamWriter, path: str, body: dict[str, Any]) -> None:
        if path == "/v1/models":
            _write_json(writer, 200, {"data": [{"id": "fake"}]})
        elif path == "/tokenize" and self.has_tokenize:
            words = body["prompt"].split()
            _write_json(writer, 200, {"tokens": [100 + i for i in range(len(words))]})
        elif path in ("/v1/completions", "/v1/chat/completions"):
            self.requests.append(body)
            if isinstance(body.get("prompt"), list) and not self.takes_ids:
                _write_json(writer, 400, {"error": {"message": "prompt must be a string"}})
            else:
                await self._stream(writer, body)
        else:
            _write_json(writer, 404, {"error": {"message": "no such path"}})
        await writer.drain()

    async def _stream(self, writer: asyncio.StreamWriter, body: dict[str, Any]) -> None:
        is_probe = body["max_tokens"] == 2
        if is_probe:
            answer = Answer(chunks=("x",))
        else:
            answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if answer.status != 200:
            error = {"message": "scripted", "reason": answer.reason}
            _write_json(writer, answer.status, {"error": error}, retry_after=answer.retry_after)
            return
        self._in_flight += 1
        self.max_in_flight = max(self.max_in_flight, self._in_flight)
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        )
        is_chat = "messages" in body
        for comment in answer.comments:
            _write_chunk(writer, f"{comment}{answer.line_end * 2}".encode())
        if is_chat:
            _write_event(writer, answer, _chunk(is_chat, "", role="assistant"))
        for text in answer.chunks:
            if answer.gap_s:
                await asyncio.sleep(answer.gap_s)
            await _write_split(writer, answer, _chunk(is_chat, text))
        self._in_flight -= 1
        if answer.breaks_off:
            writer.transport.abort()
            return
        if answer.stream_error:
            _write_event(writer, answer, {"error": {"message": answer.stream_error}})
        else:
            last = _chunk(is_chat, "", finish_reason=answer.finish_reason)
            last["choices"][0]["stop_reason"] = answer.stop_reason
            _write_event(writer, answer, last)
        if answer.sends_usage:
            usage = {
                "prompt_tokens": _count_prompt(body),
                "completion_tokens": answer.num_tokens or len(answer.chunks),
            }
            _write_event(writer, answer, {"choices": [], "usage": usage})
        _write_chunk(writer, f"data: [DONE]{answer.line_end * 2}".encode())
        writer.write(b"0\r\n\r\n")


def _count_prompt(body: dict[str, Any]) -> int:
    """Count ids, or words: two tokens a word of the chat message and five for its template."""
    if "messages" in body:
        return 5 + 2 * len(body["messages"][0]["content"].split())
    prompt = body["prompt"]
    return len(prompt) if isinstance(prompt, list) else 2 * len(prompt.split())


def _chunk(
    is_chat: bool, text: str, *, role: str | None = None, finish_reason: str | None = None
) -> dict[str, Any]:
    if is_chat:
        delta = {"role": role, "content": text} if role else {"content": text}
        choice: dict[str, Any] = {"index": 0, "delta": delta}
    else:
        choice = {"index": 0, "text": text}
    return {"choices": [{**choice, "finish_reason": finish_reason}], "usage": None}


async def _write_split(
    writer: asyncio.StreamWriter, answer: Answer, payload: dict[str, Any]
) -> None:
    """Write an event, torn in two at `split_at` bytes where the script says so."""
    data = _framed(answer, payload)
    if answer.split_at is None:
        writer.write(data)
    else:
        writer.write(data[: answer.split_at])
        await writer.drain()
        await asyncio.sleep(0.001)
        writer.write(data[answer.split_at :])
    await writer.drain()


def _write_event(writer: asyncio.StreamWriter, answer: Answer, payload: dict[str, Any]) -> None:
    writer.write(_framed(answer, payload))


def _framed(answer: Answer, payload: dict[str, Any]) -> bytes:
    event = f"data: {json.dumps(payload)}{answer.line_end * 2}".encode()
    return f"{len(event):x}\r\n".encode() + event + b"\r\n"


def _write_chunk(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")


def _write_json(
    writer: asyncio.StreamWriter,
    status: int,
    payload: dict[str, Any],
    *,
    retry_after: str | None = None,
) -> None:
    body = json.dumps(payload).encode()
    more = "" if retry_after is None else f"Retry-After: {retry_after}\r\n"
    head = f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\n{more}\r\n"
    writer.write(head.encode() + body)
