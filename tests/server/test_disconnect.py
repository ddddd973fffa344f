"""A client that leaves stops its request in the engine, whatever it was waiting for."""

from __future__ import annotations

import json
import socket
from typing import Any

import pytest

from tests.server.conftest import RunningServer
from tests.server.watcher import Watcher

MAX_TOKENS = 200


@pytest.fixture
def watched(slow_server: RunningServer) -> tuple[RunningServer, Watcher]:
    """The slow server, and a watcher that hears of this test's requests only."""
    while slow_server.engine_request_ids():
        assert slow_server.client.get("/health").status_code == 200
    watcher = Watcher()
    slow_server.engine.add_stat_logger(watcher)
    return slow_server, watcher


def send(running: RunningServer, path: str, **fields: Any) -> socket.socket:
    """Send a request and return its connection, the answer unread."""
    host, port = running.url.removeprefix("http://").split(":")
    body = json.dumps({"max_tokens": MAX_TOKENS, "ignore_eos": True, **fields}).encode()
    sock = socket.create_connection((host, int(port)), timeout=60)
    sock.sendall(
        f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\n\r\n".encode()
        + body
    )
    return sock


def read_until(sock: socket.socket, part: bytes) -> None:
    received = b""
    while part not in received:
        data = sock.recv(65536)
        assert data, received
        received += data


BODIES: list[tuple[str, dict[str, Any]]] = [
    ("/v1/completions", {"prompt": "hello"}),
    ("/v1/completions", {"prompt": ["one", "two"]}),
    ("/v1/chat/completions", {"messages": [{"role": "user", "content": "hi"}], "n": 2}),
]


@pytest.mark.parametrize(("path", "fields"), BODIES, ids=str)
def test_leaving_a_running_stream_aborts_it(
    watched: tuple[RunningServer, Watcher], path: str, fields: dict[str, Any]
) -> None:
    running, watcher = watched
    sock = send(running, path, stream=True, return_token_ids=True, **fields)
    read_until(sock, b'"token_ids":[')
    sock.close()
    for _ in range(len(fields.get("prompt", "")) if isinstance(fields.get("prompt"), list) else 1):
        record = watcher.next()
        assert record.finish_reason == "abort"
        assert record.num_generation_tokens < MAX_TOKENS * record.n
    assert running.complete().status_code == 200


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("path", "fields"), BODIES, ids=str)
def test_leaving_while_waiting_for_the_first_token_aborts(
    watched: tuple[RunningServer, Watcher], path: str, fields: dict[str, Any], stream: bool
) -> None:
    """Two long requests hold both seats; whoever waits behind them leaves."""
    running, watcher = watched
    holders = [
        send(running, "/v1/completions", prompt=f"holder {i}", stream=True, return_token_ids=True)
        for i in range(2)
    ]
    for holder in holders:
        read_until(holder, b'"token_ids":[')
    waiting = send(running, path, stream=stream, request_id="waiting", **fields)
    while not any("waiting" in name for name in running.engine_request_ids()):
        assert running.client.get("/health").status_code == 200
    waiting.close()
    record = watcher.next()
    assert "waiting" in record.request_id
    assert record.finish_reason == "abort"
    assert record.num_generation_tokens == 0
    for holder in holders:
        holder.close()
        assert watcher.next().finish_reason == "abort"


def test_leaving_a_whole_answer_aborts_it(watched: tuple[RunningServer, Watcher]) -> None:
    running, watcher = watched
    before = running.engine.stats().num_generation_tokens
    sock = send(running, "/v1/completions", prompt="hello")
    while running.engine.stats().num_generation_tokens == before:
        assert running.client.get("/health").status_code == 200
    sock.close()
    record = watcher.next()
    assert record.finish_reason == "abort"
    assert 0 < record.num_generation_tokens < MAX_TOKENS


def test_leaving_in_the_middle_of_the_body_is_nothing(server: RunningServer) -> None:
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=60) as sock:
        sock.sendall(
            b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
            b'content-length: 1000\r\n\r\n{"prompt'
        )
    assert server.is_serving()


def test_metrics_return_to_zero_after_clients_vanish(
    watched: tuple[RunningServer, Watcher],
) -> None:
    """No step runs any more then, and the gauges must not keep their last values."""
    running, watcher = watched
    aborted = {"name": "wheelpit:request_success_total", "finished_reason": "abort"}
    before = running.metric(running.metrics(), **aborted)
    socks = [
        send(running, "/v1/completions", prompt=f"p{i}", stream=True, return_token_ids=True)
        for i in range(4)
    ]
    read_until(socks[0], b'"token_ids":[')
    for sock in socks:
        sock.close()
    assert {watcher.next().finish_reason for _ in socks} == {"abort"}
    gauges = ("num_requests_running", "num_requests_waiting", "kv_cache_usage_perc")
    while True:
        text = running.metrics()
        values = [running.metric(text, f"wheelpit:{name}") for name in gauges]
        if not any(values):
            break
    assert running.metric(text, **aborted) == before + 4
