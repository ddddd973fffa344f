"""Frames and channels: nothing lost, nothing blocked, ends noticed."""

from __future__ import annotations

import asyncio
import socket

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wheelpit.engine.messages import Abort, Call, CallResult, FromEngine, ToEngine
from wheelpit.engine.transport import BlockingChannel, FrameDecoder, FrameError, LoopChannel, frame


@given(st.lists(st.integers(0, 300), max_size=30), st.integers(1, 50))
def test_any_cut_of_the_stream_gives_the_same_messages(sizes, cut):
    messages = [Abort(["x" * size]) for size in sizes]
    data = b"".join(map(frame, messages))
    decoder = FrameDecoder(ToEngine)
    received = []
    for start in range(0, len(data), cut):
        received += decoder.feed(data[start : start + cut])
    assert received == messages


noise = st.one_of(
    st.binary(max_size=64),
    # Frames of the right length with anything inside, and messages with a byte changed.
    st.binary(max_size=64).map(lambda data: len(data).to_bytes(4, "little") + data),
    st.tuples(st.integers(0, 40), st.integers(0, 255)).map(
        lambda place: _with_byte(frame(Abort(["request-1", "request-2"])), *place)
    ),
)


def _with_byte(data: bytes, index: int, value: int) -> bytes:
    index %= len(data)
    return data[:index] + bytes([value]) + data[index + 1 :]


@given(st.lists(noise, max_size=4), st.integers(1, 50))
@settings(max_examples=1000, deadline=None)
def test_random_bytes_are_messages_or_one_clear_error(parts, cut):
    data = b"".join(parts)
    for types in (ToEngine, FromEngine):
        decoder = FrameDecoder(types)
        received = []
        try:
            for start in range(0, len(data), cut):
                received += decoder.feed(data[start : start + cut])
        except FrameError:
            pass
        assert len(received) <= len(data) // 4
        assert all(isinstance(message, msgspec.Struct) for message in received)


BROKEN = (3).to_bytes(4, "little") + b"\xc1\xc1\xc1"


async def test_nonsense_from_the_engine_is_its_end(pair, caplog):
    front, _, theirs = pair
    ended = asyncio.Event()
    front.attach(asyncio.get_running_loop(), lambda message: None, ended.set)
    theirs.setblocking(True)
    theirs.sendall(BROKEN)
    await ended.wait()
    assert front.is_closed
    assert "talks nonsense" in caplog.text


def test_nonsense_from_the_front_end_is_its_end(pair, caplog):
    front, back, _ = pair
    front._socket.sendall(frame(Abort(["x"])) + BROKEN)
    assert back.receive(wait=True) is None
    assert "talks nonsense" in caplog.text


def test_nonsense_before_the_first_message_is_the_end(pair, caplog):
    front, _, theirs = pair
    theirs.setblocking(True)
    theirs.sendall(BROKEN)
    assert front.receive_blocking() is None


@pytest.fixture
def pair():
    ours, theirs = socket.socketpair()
    yield LoopChannel(ours, FromEngine), BlockingChannel(theirs, ToEngine), theirs
    ours.close()
    theirs.close()


async def test_messages_cross_in_both_directions(pair):
    front, back, _ = pair
    got = []
    arrived = asyncio.Event()

    def on_message(message):
        got.append(message)
        arrived.set()

    front.attach(asyncio.get_running_loop(), on_message, lambda: None)
    front.send(Call(1, "x"))
    assert back.receive(wait=True) == [Call(1, "x")]
    back.send(CallResult(1, True))
    await arrived.wait()
    assert got == [CallResult(1, True)]
    front.detach()


async def test_a_slow_reader_blocks_neither_side(pair):
    front, back, _ = pair
    front.attach(asyncio.get_running_loop(), lambda message: None, lambda: None)
    big = Abort(["x" * 100_000] * 10)
    for _ in range(5):
        front.send(big)
    received = []
    while len(received) < 5:
        await asyncio.sleep(0)
        received += back.receive(wait=False)
    assert received == [big] * 5
    front.detach()


async def test_the_engine_side_keeps_what_the_socket_does_not_take(pair):
    front, back, _ = pair
    big = CallResult(0, "x" * 1_000_000)
    for _ in range(3):
        back.send(big)
    received = []
    front.attach(asyncio.get_running_loop(), received.append, lambda: None)
    while len(received) < 3:
        back.receive(wait=False)
        await asyncio.sleep(0)
    assert received == [big] * 3
    front.detach()


def test_the_engine_side_sees_the_end(pair):
    front, back, _ = pair
    front.close()
    assert back.receive(wait=True) is None
    back.send(CallResult(0))
    assert back.receive(wait=False) is None


async def test_the_front_end_side_sees_the_end_once(pair):
    front, _, theirs = pair
    ends = []
    closed = asyncio.Event()

    def on_close():
        ends.append(1)
        closed.set()

    front.attach(asyncio.get_running_loop(), lambda message: None, on_close)
    theirs.close()
    await closed.wait()
    front.send(Call(1, "x"))
    front.close()
    assert ends == [1]


def test_the_end_before_the_first_message_is_none(pair):
    front, _, theirs = pair
    theirs.close()
    assert front.receive_blocking() is None
