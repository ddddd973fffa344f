"""One HTTP exchange at a time, byte by byte, and what makes an answer whole: used by `soak.py`.

A connection carries one request and is closed after it, or in the middle of it: to leave is what
many of the soak's clients are for. An answer that breaks a promise raises `BrokenPromiseError`.
"""

import asyncio
import json
import re
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

PATIENCE_S = 120.0
"""Nobody waits longer for an answer: a server may be replacing its engine, and be busy."""


class BrokenPromiseError(Exception):
    """A server did what it must not do."""


class Exchange:
    """One request and its answer. An async context manager; leaving it closes the connection."""

    def __init__(self, url: str, request: bytes) -> None:
        """request: all that is sent, which need not make sense."""
        self._address = urlsplit(url)
        self._request = request
        self.status = 0
        self.headers: dict[str, str] = {}

    @classmethod
    def of(
        cls,
        url: str,
        method: str,
        path: str,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
    ) -> Self:
        """One with a proper request."""
        lines = {
            "host": urlsplit(url).netloc,
            "connection": "close",
            "content-type": "application/json",
            "content-length": str(len(body)),
            **(headers or {}),
        }
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        return cls(url, f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode() + body)

    async def __aenter__(self) -> Self:
        """Connect, and send the request."""
        self._reader, self._writer = await asyncio.open_connection(
            self._address.hostname, self._address.port
        )
        self._writer.write(self._request)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._writer.close()

    async def flush(self) -> None:
        """Wait until the system has taken all that was sent."""
        await self._writer.drain()

    async def read_head(self) -> int:
        """Read the status and the headers."""
        try:
            head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        except asyncio.IncompleteReadError as error:
            raise BrokenPromiseError(f"no answer, but {error.partial!r}") from error
        status, *lines = head.rstrip().split("\r\n")
        self.status = int(status.split()[1])
        for line in lines:
            name, _, value = line.partition(": ")
            self.headers[name.lower()] = value
        return self.status

    async def read(self) -> bytes:
        """Read the rest of the answer, to its proper end."""
        async with aclosing(self._pieces()) as pieces:
            return b"".join([piece async for piece in pieces])

    async def events(self) -> AsyncGenerator[bytes, None]:
        """Yield the events of a stream, comments included, to its proper end."""
        rest = b""
        async with aclosing(self._pieces()) as pieces:
            async for piece in pieces:
                *events, rest = (rest + piece).split(b"\n\n")
                for event in events:
                    yield event
        if rest:
            raise BrokenPromiseError(f"a stream ends in the middle of an event: {rest!r}")

    async def _pieces(self) -> AsyncGenerator[bytes, None]:
        try:
            if "content-length" in self.headers:
                yield await self._reader.readexactly(int(self.headers["content-length"]))
                return
            while size := int(await self._reader.readuntil(b"\r\n"), 16):
                yield (await self._reader.readexactly(size + 2))[:-2]
            await self._reader.readexactly(2)
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            raise BrokenPromiseError(f"an answer breaks off: {error!r}") from error


@dataclass(slots=True)
class Choice:
    """One completion of an answer."""

    text: str = ""
    token_ids: list[int] = field(default_factory=list)
    finish_reason: str | None = None
    stop_reason: str | int | None = None


class Answer:
    """All choices of an answer, put together from a stream's chunks or from one body."""

    def __init__(self) -> None:
        self.choices: dict[int, Choice] = {}
        self.is_done = False
        self.error: str | None = None

    @classmethod
    def from_body(cls, body: bytes) -> Self:
        answer = cls()
        answer.add(json.loads(body))
        answer.is_done = True
        return answer

    def add_event(self, event: bytes) -> bool:
        """Take in one event of a stream; False if it was a comment."""
        lines = [line for line in event.split(b"\n") if line.startswith(b"data: ")]
        if not lines:
            return False
        (line,) = lines
        if self.is_done:
            raise BrokenPromiseError(f"something comes after the end: {event!r}")
        if line == b"data: [DONE]":
            self.is_done = True
        else:
            self.add(json.loads(line.removeprefix(b"data: ")))
        return True

    def add(self, chunk: dict[str, Any]) -> None:
        if "error" in chunk:
            self.error = str(chunk["error"])
            return
        for piece in chunk["choices"]:
            choice = self.choices.setdefault(piece["index"], Choice())
            if choice.finish_reason is not None:
                raise BrokenPromiseError(f"choice {piece['index']} goes on after its end: {piece}")
            message = piece.get("message") or piece.get("delta") or piece
            choice.text += message.get("content") or message.get("text") or ""
            choice.token_ids += piece.get("token_ids") or ()
            choice.finish_reason = piece["finish_reason"]
            choice.stop_reason = piece.get("stop_reason")

    def check_ended(self) -> None:
        """Has it come to its end, once, in all of its parts?"""
        if self.error is not None:
            raise BrokenPromiseError(f"an error: {self.error}")
        if not self.is_done:
            raise BrokenPromiseError("a stream ends without [DONE]")
        open_ended = [i for i, choice in self.choices.items() if choice.finish_reason is None]
        if open_ended or not self.choices:
            raise BrokenPromiseError(f"choices {open_ended} of {len(self.choices)} have no end")

    def compare(self, wanted: "Answer", *, may_be_cut: bool) -> str:
        """Check every token against an undisturbed answer; returns how it ended.

        may_be_cut: it may have ended early, with "abort".
        """
        self.check_ended()
        if self.choices.keys() != wanted.choices.keys():
            raise BrokenPromiseError(f"choices {list(self.choices)} for {list(wanted.choices)}")
        ended = "complete"
        for index, choice in self.choices.items():
            right = wanted.choices[index]
            is_cut = may_be_cut and choice.finish_reason == "abort"
            if is_cut:
                is_right = right.token_ids[: len(choice.token_ids)] == choice.token_ids
            else:
                is_right = choice.finish_reason == right.finish_reason
                is_right &= choice.text == right.text
                is_right &= choice.stop_reason == right.stop_reason
                is_right &= choice.token_ids in ([], right.token_ids)
            if not is_right:
                raise BrokenPromiseError(f"choice {index} is {choice}, right is {right}")
            if is_cut:
                ended = "abort"
        return ended


class NumberedEvents:
    """The events of one resumable stream: each number once, in order, over all connections."""

    def __init__(self) -> None:
        self.last_id = 0

    def check(self, event: bytes) -> None:
        """Take note of an event's number, if it is no comment."""
        number = re.match(rb"id: (\d+)\n", event)
        if number is None:
            if not event.startswith(b":"):
                raise BrokenPromiseError(f"an event without a number: {event!r}")
            return
        if int(number[1]) != self.last_id + 1:
            raise BrokenPromiseError(f"event {number[1]!r} comes after event {self.last_id}")
        self.last_id += 1
