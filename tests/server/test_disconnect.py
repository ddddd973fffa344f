"""A client that leaves stops its request in the engine, whatever it was waiting for."""

from __future__ import annotations

import asyncio
import os
import socket
from typing import Any

import pytest

from tests.server.conftest import MakeGated, RunningServer
from tests.server.raw_client import FIRST_TOKEN, RawClient, complete
from tests.server.raw_client import stream as stream_tokens
from tests.server.watcher import Watcher
from wheelpit.server.options import ServerOptions

MAX_TOKENS = 200


@pytest.fixture
def watched(slow_server: RunningServer) -> tuple[RunningServer, Watcher]:
    """The slow server, and a watcher that hears of this test's requests only."""
    while slow_server.engine_request_ids():
        assert slow_server.client.get("/health").status_code == 200
    watcher = Watcher()
    slow_server.engine.add_stat_logger(watcher)
    return slow_server, watcher


def send(running: RunningServer, path: str, **fields: Any) -> RawClient:
    """Send a request of so many tokens."""
    return RawClient(running, path, {"max_tokens": MAX_TOKENS, "ignore_eos": True, **fields}, {})


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
    with send(running, path, stream=True, return_token_ids=True, **fields) as client:
        client.read_until(FIRST_TOKEN)
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
    holders = [stream_tokens(running, prompt=f"holder {i}") for i in range(2)]
    for holder in holders:
        holder.read_until(FIRST_TOKEN)
    with send(running, path, stream=stream, request_id="waiting", **fields):
        while not any("waiting" in name for name in running.engine_request_ids()):
            pass
    record = watcher.next()
    assert "waiting" in record.request_id
    assert record.finish_reason == "abort"
    assert record.num_generation_tokens == 0
    for holder in holders:
        holder.leave()
        assert watcher.next().finish_reason == "abort"


def test_leaving_a_whole_answer_aborts_it(watched: tuple[RunningServer, Watcher]) -> None:
    running, watcher = watched
    before = running.engine.stats().num_generation_tokens
    with complete(running):
        running.wait_until(lambda: running.engine.stats().num_generation_tokens > before)
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
    clients = [stream_tokens(running, prompt=f"p{i}") for i in range(4)]
    clients[0].read_until(FIRST_TOKEN)
    for client in clients:
        client.leave()
    assert {watcher.next().finish_reason for _ in clients} == {"abort"}
    gauges = ("num_requests_running", "num_requests_waiting", "kv_cache_usage_perc")
    while True:
        text = running.metrics()
        values = [running.metric(text, f"wheelpit:{name}") for name in gauges]
        if not any(values):
            break
    assert running.metric(text, **aborted) == before + 4


LEAVERS: list[dict[str, Any]] = [{"stream": True}, {"stream": False}, {"n": 2, "temperature": 1}]


@pytest.mark.parametrize("fields", LEAVERS, ids=str)
def test_who_leaves_frees_a_seat_within_one_step(
    make_gated: MakeGated, fields: dict[str, Any]
) -> None:
    """The step in flight ends, and the next one has somebody else in that seat."""
    gated = make_gated(max_num_seqs=1)
    running = gated.server
    gated.gate.step(1)
    with complete(running, **fields) as client, stream_tokens(running) as waiting:
        running.wait_until(lambda: running.engine.stats().num_generation_tokens == 1)
        running.wait_until(lambda: running.engine.stats().num_requests == 2)
        client.leave()
        assert gated.watcher.next().finish_reason == "abort"
        gated.gate.step(2)
        waiting.read_until(FIRST_TOKEN)


def test_a_hundred_clients_that_leave_mid_stream_leave_nothing_behind(
    make_gated: MakeGated,
) -> None:
    """Sixty have seats and a token, forty wait and have read a comment of their place."""
    gated = make_gated(ServerOptions(keep_alive_s=0.05), max_num_seqs=60)
    running = gated.server
    with stream_tokens(running, max_tokens=1) as first:
        gated.gate.step(1)
        first.answer()
    assert gated.watcher.next().finish_reason == "length"
    num_tasks = running.on_loop(lambda: len(asyncio.all_tasks()))
    num_files = len(os.listdir("/proc/self/fd"))

    seated = [stream_tokens(running, prompt=f"{number}") for number in range(60)]
    running.wait_until(lambda: running.engine.stats().num_requests == 60)
    # The first step may have begun with a few of them.
    gated.gate.step(2)
    for client in seated:
        client.read_until(FIRST_TOKEN)
    waiting = [stream_tokens(running, prompt=f"{number}") for number in range(40)]
    for client in waiting:
        client.read_until(b": queued position=")
    clients = [*seated, *waiting]
    for client in clients:
        client.leave()
    records = [gated.watcher.next() for _ in clients]
    assert {record.finish_reason for record in records} == {"abort"}
    assert gated.watcher.is_empty()
    assert running.on_loop(lambda: len(running.live)) == 0
    stats = running.on_loop(running.engine.stats)
    assert (stats.num_requests, stats.num_queued, stats.num_queued_tokens) == (0, 0, 0)
    running.wait_until(lambda: len(asyncio.all_tasks()) <= num_tasks)
    running.wait_until(lambda: len(os.listdir("/proc/self/fd")) <= num_files)
    # The step in flight ends, and the engine has nothing to do.
    gated.gate.open()
    running.wait_until(lambda: running.engine.stats().engine.num_running == 0)
    running.wait_until(lambda: running.engine.stats().engine.num_waiting == 0)
    assert running.is_serving()
