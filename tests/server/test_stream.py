"""Streams on the wire: framing, errors in the middle, slow readers."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import AsyncGenerator, Callable
from pathlib import Path

import pytest

from tests.fake_worker import RAISES
from tests.server.conftest import MakeServer, RunningServer
from tests.server.scripted_engine import Script, ScriptedEngine, delta
from tests.server.sse_reader import events_of, text_of
from tests.server.watcher import Watcher
from wheelpit.errors import EngineGenerateError
from wheelpit.request import RequestOutput
from wheelpit.server.options import ServerOptions
from wheelpit.server.sse import ChunkWriter

Outputs = AsyncGenerator[RequestOutput, None]


@pytest.fixture
def scripted(make_server: MakeServer, model_folder: Path) -> Callable[[Script], RunningServer]:
    def make(script: Script) -> RunningServer:
        return make_server(engine=ScriptedEngine(model_folder, script))

    return make


async def fails_at_once() -> Outputs:
    raise EngineGenerateError("the fake failed")
    yield delta("")


async def fails_later() -> Outputs:
    yield delta("one", 5)
    raise RuntimeError("secret detail at 0x7fff12345678")


async def ends_with_error() -> Outputs:
    yield delta("one", 5)
    yield delta("", finish_reason="error")


async def begins_with_error() -> Outputs:
    yield delta("", finish_reason="error")


async def is_aborted() -> Outputs:
    yield delta("one", 5)
    yield delta(" two", 6, finish_reason="abort")


async def says_odd_things() -> Outputs:
    yield delta('quote " backslash \\ newline \n tab \t nul \x00 line \u2028 emoji 🎉', 5)
    yield delta("", 6)
    yield delta("end", 7, finish_reason="stop")


@pytest.mark.parametrize("script", [fails_at_once, begins_with_error])
@pytest.mark.parametrize("stream", [False, True])
def test_an_error_before_the_first_token_is_a_plain_500(
    scripted, script: Script, stream: bool
) -> None:
    running = scripted(script)
    response = running.chat(stream=stream)
    assert response.status_code == 500
    assert response.json()["error"]["type"] == "InternalServerError"


@pytest.mark.parametrize("script", [fails_later, ends_with_error])
def test_an_error_in_the_middle_is_an_event_and_then_done(scripted, script: Script) -> None:
    running = scripted(script)
    for response in (running.chat(stream=True), running.complete(stream=True)):
        *events, last = events_of(response)
        assert text_of(events) == "one"
        assert last["error"]["code"] == 500
        assert last["error"]["type"] == "InternalServerError"
        assert "secret" not in last["error"]["message"]
    assert running.chat().status_code == 500


@pytest.mark.parametrize("is_stream", [False, True])
def test_an_error_of_one_prompt_ends_the_others(
    watched: tuple[RunningServer, Watcher], is_stream: bool
) -> None:
    """Nobody would read the rest of them."""
    running, watcher = watched
    response = running.complete(
        prompt=[[5, 6], [RAISES, 6]], stream=is_stream, max_tokens=200, ignore_eos=True
    )
    if is_stream and response.status_code == 200:
        assert events_of(response)[-1]["error"]["code"] == 500
    else:
        assert response.status_code == 500
    records = sorted((watcher.next() for _ in range(2)), key=lambda record: record.finish_reason)
    assert [record.finish_reason for record in records] == ["abort", "error"]
    assert records[0].num_generation_tokens < 200


@pytest.fixture
def watched(make_server: MakeServer) -> tuple[RunningServer, Watcher]:
    """20 ms a step: what should be ended has not ended by itself."""
    running = make_server(step_ms=20)
    watcher = Watcher()
    running.engine.add_stat_logger(watcher)
    return running, watcher


def test_an_abort_is_a_finish_reason(scripted) -> None:
    running = scripted(is_aborted)
    events = events_of(running.chat(stream=True))
    assert events[-1]["choices"][0]["finish_reason"] == "abort"
    assert text_of(events) == "one two"


def test_any_text_survives_the_framing(scripted) -> None:
    running = scripted(says_odd_things)
    events = events_of(running.complete(stream=True))
    assert text_of(events) == (
        'quote " backslash \\ newline \n tab \t nul \x00 line \u2028 emoji 🎉end'
    )
    # The output without text made no chunk.
    assert len(events) == 2


def test_an_engine_that_dies_in_the_middle_is_an_error_event(make_server: MakeServer) -> None:
    running = make_server(step_ms=20, max_restarts=0)
    body = {"prompt": "x", "stream": True, "max_tokens": 200, "return_token_ids": True}
    with running.client.stream("POST", "/v1/completions", json=body) as response:
        lines = response.iter_lines()
        assert next(lines).startswith("data: {")
        os.kill(running.engine.engine_pid, signal.SIGKILL)
        events = [line for line in lines if line]
    assert events[-1] == "data: [DONE]"
    error = json.loads(events[-2].removeprefix("data: "))["error"]
    assert error["code"] == 500
    assert "engine" in error["message"]


def test_a_reader_that_does_not_read_gets_everything_in_the_end(
    make_server: MakeServer,
) -> None:
    """What piles up while nobody reads is merged in one slot, not queued chunk by chunk."""
    running = make_server(step_ms=0)
    host, port = running.url.removeprefix("http://").split(":")
    body = json.dumps(
        {"prompt": "x", "stream": True, "max_tokens": 250, "ignore_eos": True, "seed": 1}
    ).encode()
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        sock.connect((host, int(port)))
        sock.sendall(
            b"POST /v1/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\n"
            b"content-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body) + body
        )
        # Others are served meanwhile.
        whole = running.complete(prompt="x", max_tokens=250, ignore_eos=True).json()
        received = b""
        while data := sock.recv(1024):
            received += data
    assert received.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")
    frames = [part for part in received.split(b"data: ") if part.startswith(b'{"id"')]
    events = [json.loads(frame.partition(b"\n\n")[0]) for frame in frames]
    assert text_of(events) == whole["choices"][0]["text"]


def test_usage_can_be_forced_on_every_chunk(make_server: MakeServer) -> None:
    running = make_server(ServerOptions(force_include_usage=True))
    _, *events = events_of(running.complete(stream=True, return_token_ids=True))
    assert all(event["usage"]["prompt_tokens"] == 5 for event in events)
    assert events[-1]["choices"] == []


def test_the_role_of_answers_can_be_chosen(make_server: MakeServer) -> None:
    running = make_server(ServerOptions(response_role="bot"))
    assert running.chat().json()["choices"][0]["message"]["role"] == "bot"
    assert events_of(running.chat(stream=True))[0]["choices"][0]["delta"]["role"] == "bot"


def test_plain_and_detailed_chunks_have_the_same_shape() -> None:
    writer = ChunkWriter({"id": "x"}, b'"delta":{"content":', b"}")
    plain, detailed = writer.plain(3, 'a"b'), writer.chunk(3, 'a"b', {}, {})
    assert plain == detailed
    assert json.loads(plain.removeprefix(b"data: ")) == {
        "id": "x",
        "choices": [
            {"index": 3, "delta": {"content": 'a"b'}, "logprobs": None, "finish_reason": None}
        ],
    }
