"""Frames over the socket pair between the front end and the engine process.

A frame is a little-endian u32 length and that many bytes of msgpack. `FrameDecoder` cuts a byte
stream into frames and does no I/O; `LoopChannel` connects a socket to an event loop, for the
front end; `BlockingChannel` is what the engine process uses.
"""

from __future__ import annotations

import asyncio
import logging
import select
import socket
import struct
from collections.abc import Callable
from typing import Any

import msgspec

from wheelpit.errors import ServerError

log = logging.getLogger(__name__)

MAX_FRAME_BYTES = 1 << 30
RECEIVE_BYTES = 1 << 18

_encode = msgspec.msgpack.Encoder().encode
_LENGTH = struct.Struct("<I")


def frame(message: msgspec.Struct) -> bytes:
    """Encode one message with its length in front."""
    payload = _encode(message)
    return _LENGTH.pack(len(payload)) + payload


class FrameError(ServerError):
    """What came is no frame of ours: nothing that comes after it can be read."""


class FrameDecoder:
    """Cut received bytes into messages of one union type. Sans-IO."""

    def __init__(self, message_types: Any) -> None:
        self._decode = msgspec.msgpack.Decoder(message_types).decode
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Any]:
        """Return every message that is now complete, in order. FrameError."""
        buffer = self._buffer
        buffer += data
        messages = []
        start = 0
        while len(buffer) - start >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(buffer, start)
            if length > MAX_FRAME_BYTES:
                raise FrameError(f"a frame of {length} bytes, limit is {MAX_FRAME_BYTES}")
            end = start + _LENGTH.size + length
            if len(buffer) < end:
                break
            # A copy: an error's traceback would hold a view, and the buffer could not be resized.
            payload = bytes(memoryview(buffer)[start + _LENGTH.size : end])
            try:
                messages.append(self._decode(payload))
            except (msgspec.MsgspecError, UnicodeError, RecursionError, ValueError) as error:
                raise FrameError(f"a frame of {length} bytes is no message: {error}") from error
            start = end
        if start:
            del buffer[:start]
        return messages


class BlockingChannel:
    """One end of the pair in a process without an event loop (the engine's).

    Sending never waits for the reader: what the socket does not take is kept and sent on later
    calls. That is bounded by what the running requests can still produce.
    """

    def __init__(self, sock: socket.socket, message_types: Any) -> None:
        self._socket = sock
        self._decoder = FrameDecoder(message_types)
        self._outbox = bytearray()
        sock.setblocking(False)

    def send(self, message: msgspec.Struct) -> None:
        self._outbox += frame(message)
        self._flush()

    def receive(self, *, wait: bool) -> list[Any] | None:
        """Return the messages that have arrived; None when the other side is gone.

        wait: block until there is at least one message or the other side is gone.
        """
        messages: list[Any] = []
        while True:
            if self._outbox:
                self._flush()
            try:
                data = self._socket.recv(RECEIVE_BYTES)
            except BlockingIOError:
                if messages or not wait:
                    return messages
                self._wait_for_traffic()
                continue
            except ConnectionError:
                return None
            if not data:
                return None
            try:
                messages += self._decoder.feed(data)
            except FrameError as error:
                log.error("the front end talks nonsense, which ends this process: %s", error)
                return None

    def flush_blocking(self) -> None:
        """Send everything kept, for a last message before the process ends."""
        self._socket.setblocking(True)
        try:
            self._socket.sendall(self._outbox)
        except ConnectionError:
            # Nobody is left to tell.
            pass
        self._outbox.clear()

    def _wait_for_traffic(self) -> None:
        writers = [self._socket] if self._outbox else []
        select.select([self._socket], writers, [])

    def _flush(self) -> None:
        try:
            sent = self._socket.send(self._outbox)
        except BlockingIOError:
            return
        except ConnectionError:
            # The reader is gone: receive() will say so.
            self._outbox.clear()
            return
        del self._outbox[:sent]


class LoopChannel:
    """One end of the pair, served by an event loop (asyncio's or uvloop's).

    Blocking calls (`receive_blocking`) are for the start-up, before `attach`. The socket stays
    ours, so the channel can be attached to another loop after the first one was closed. When the
    other side closes, or sends what is no message, `on_close` is called once.
    """

    def __init__(self, sock: socket.socket, message_types: Any) -> None:
        self._socket = sock
        self._decoder = FrameDecoder(message_types)
        self._early: list[Any] = []
        self._outbox = bytearray()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._on_message: Callable[[Any], None] = lambda message: None
        self._on_close: Callable[[], None] = lambda: None
        self.is_closed = False

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        return self._loop

    def receive_blocking(self) -> Any | None:
        """Wait for one message; None when the other side is gone. Only before `attach`."""
        assert self._loop is None, "receive_blocking on an attached channel"
        while not self._early:
            try:
                data = self._socket.recv(RECEIVE_BYTES)
            except ConnectionError:
                return None
            if not data:
                return None
            try:
                self._early += self._decoder.feed(data)
            except FrameError as error:
                log.error("the engine process talks nonsense: %s", error)
                return None
        return self._early.pop(0)

    def attach(
        self,
        loop: asyncio.AbstractEventLoop,
        on_message: Callable[[Any], None],
        on_close: Callable[[], None],
    ) -> None:
        self._on_message, self._on_close = on_message, on_close
        self._loop = loop
        self._socket.setblocking(False)
        loop.add_reader(self._socket.fileno(), self._readable)
        early, self._early = self._early, []
        for message in early:
            on_message(message)

    def detach(self) -> None:
        """Leave the loop; the socket stays open."""
        if self._loop is not None and not self._loop.is_closed() and not self.is_closed:
            self._loop.remove_reader(self._socket.fileno())
            self._loop.remove_writer(self._socket.fileno())
        self._loop = None

    def send(self, message: msgspec.Struct) -> None:
        """Send now, or keep it until the socket takes it. Silently dropped after the end."""
        if self.is_closed:
            return
        had_outbox = bool(self._outbox)
        self._outbox += frame(message)
        if self._loop is None:
            self._socket.setblocking(True)
            try:
                self._socket.sendall(self._outbox)
            except ConnectionError:
                pass
            self._outbox.clear()
        elif not had_outbox:
            self._writable()

    def close(self) -> None:
        if self.is_closed:
            return
        self.detach()
        self.is_closed = True
        self._socket.close()

    def _readable(self) -> None:
        try:
            data = self._socket.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return
        except ConnectionError:
            data = b""
        try:
            messages = self._decoder.feed(data)
        except FrameError as error:
            # As if it had left: whoever owns it ends what is left of it.
            log.error("the engine process talks nonsense: %s", error)
            data = b""
        if not data:
            self.close()
            self._on_close()
            return
        for message in messages:
            self._on_message(message)

    def _writable(self) -> None:
        assert self._loop is not None
        try:
            sent = self._socket.send(self._outbox)
        except BlockingIOError:
            sent = 0
        except ConnectionError:
            # The reading side notices the end and reports it.
            self._outbox.clear()
            return
        del self._outbox[:sent]
        if self._outbox:
            self._loop.add_writer(self._socket.fileno(), self._writable)
        else:
            self._loop.remove_writer(self._socket.fileno())
