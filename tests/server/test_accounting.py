"""Every request leaves one line in the log and is counted once, however it ends."""

from __future__ import annotations

import asyncio
import logging
import random
import re
from collections import Counter
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.server.conftest import GatedServer, MakeGated, MakeServer, RunningServer
from tests.server.raw_client import FIRST_TOKEN, cancel, complete, stream
from tests.server.scripted_engine import ScriptedEngine, delta
from wheelpit.request import RequestOutput
from wheelpit.server.options import ServerOptions


@pytest.fixture
def gated(make_gated: MakeGated, caplog: pytest.LogCaptureFixture) -> GatedServer:
    """One seat, and one place to wait in."""
    caplog.set_level(logging.INFO)
    return make_gated(ServerOptions(keep_alive_s=0), max_num_seqs=1, max_num_queued_reqs=1)


def ended(running: RunningServer, **labels: str) -> float:
    return running.metric(running.metrics(), "wheelpit:request_success_total", **labels)


def lines_of(caplog: pytest.LogCaptureFixture, name: str) -> list[str]:
    """Our lines that name a request. uvicorn's are off, but pytest asks for them nevertheless."""
    ours = [
        r for r in caplog.records if r.name.startswith("wheelpit") and r.levelno > logging.DEBUG
    ]
    return [record.getMessage() for record in ours if name in record.getMessage()]


def test_each_way_to_end_is_one_line_and_one_count(
    gated: GatedServer, caplog: pytest.LogCaptureFixture
) -> None:
    running = gated.server
    gated.gate.step(1)
    with stream(running, {"x-request-id": "leaves-running"}) as running_one:
        running_one.read_until(FIRST_TOKEN)
        with complete(running, {"x-request-id": "leaves-waiting"}):
            running.wait_until(lambda: running.engine.stats().num_queued == 1)
            assert running.complete(request_id="is-refused").status_code == 429
            assert gated.watcher.next().finish_reason == "refused"
        assert gated.watcher.next().finish_reason == "abort"
        with complete(running, {"x-request-id": "is-cancelled"}) as cancelled:
            running.wait_until(lambda: running.engine.stats().num_queued == 1)
            assert cancel(running, "is-cancelled").status_code == 200
            assert cancelled.answer().status_code == 200
        assert gated.watcher.next().finish_reason == "abort"
        assert running.complete(request_id="is-late", queue_timeout=0.05).status_code == 504
        assert gated.watcher.next().stop_reason == "queue_timeout"
    assert gated.watcher.next().finish_reason == "abort"
    gated.gate.open()
    assert running.complete(request_id="is-done", max_tokens=2, ignore_eos=True).status_code == 200
    assert gated.watcher.next().finish_reason == "length"
    assert running.complete(request_id="is-wrong", temperature=-1).status_code == 400
    assert gated.watcher.next().stop_reason == "invalid"
    assert gated.watcher.is_empty()

    expected = {
        "leaves-running": r"request cmpl-leaves-running-0: abort, 5 prompt \+ 1 output .*",
        "leaves-waiting": r"request cmpl-leaves-waiting-0: abort, 5 prompt \+ 0 output .*",
        "is-refused": r"request cmpl-is-refused: refused \(queue_full\)",
        "is-cancelled": r"request cmpl-is-cancelled-0: abort, 5 prompt \+ 0 output .*",
        "is-late": r"request cmpl-is-late-0: abort \(queue_timeout\), 5 prompt .*",
        "is-done": r"request cmpl-is-done-0: length, 5 prompt \+ 2 output .*",
        "is-wrong": r"request cmpl-is-wrong-0: refused \(invalid\)",
    }
    for name, pattern in expected.items():
        lines = lines_of(caplog, name)
        assert len(lines) == 1, lines
        assert re.fullmatch(pattern, lines[0]), lines
    assert ended(running, finished_reason="abort") == 4
    assert ended(running, finished_reason="refused") == 2
    assert ended(running, finished_reason="length") == 1
    assert ended(running) == len(expected)
    text = running.metrics()
    assert running.metric(text, "wheelpit:admission_rejections_total") == 1
    assert running.metric(text, "wheelpit:request_timeouts_total") == 1
    # Those that were refused are in no distribution.
    assert running.metric(text, "wheelpit:e2e_request_latency_seconds_count") == 5


def test_what_cannot_be_read_is_a_line_too(
    gated: GatedServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing is known of it but its id, so it is counted as an HTTP answer alone."""
    running = gated.server
    bad: list[tuple[str, dict[str, Any]]] = [
        ("bad-json", {"content": "{", "headers": {"content-type": "application/json"}}),
        ("bad-type", {"content": "{}", "headers": {"content-type": "text/plain"}}),
        ("bad-field", {"json": {"prompt": "x", "max_tokens": "many"}}),
        ("no-prompt", {"json": {}}),
    ]
    for name, given in bad:
        headers = {"x-request-id": name, **given.pop("headers", {})}
        response = running.client.post("/v1/completions", headers=headers, **given)
        assert response.status_code == 400
        assert lines_of(caplog, name) == [f"request {name}: refused (malformed)"]
    assert ended(running) == 0
    labels = {"handler": "/v1/completions", "status": "4xx"}
    assert running.metric(running.metrics(), "http_requests_total", **labels) == len(bad)


async def breaks() -> AsyncGenerator[RequestOutput, None]:
    yield delta("one", 5)
    raise RuntimeError("broken")


def test_ours_is_an_error_and_the_refused_are_none(
    make_server: MakeServer, model_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Tracebacks are for our own faults: a server under load must not fill its log with others."""
    engine = ScriptedEngine(model_folder, breaks)
    running = make_server(engine=engine)
    assert running.complete(stream=True).status_code == 200
    assert [record.levelno for record in caplog.records if record.exc_info] == [logging.ERROR]


def test_one_id_is_in_the_header_the_body_the_log_and_the_engine(
    gated: GatedServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Echoing it is on unless it is switched off; without one from the client, one is made."""
    running = gated.server
    gated.gate.open()
    for headers in ({"x-request-id": "theirs"}, {}):
        response = running.client.post(
            "/v1/completions", json={"prompt": ["a", "b"], "max_tokens": 1}, headers=headers
        )
        name = response.headers["x-request-id"]
        assert name == headers.get("x-request-id", name)
        assert response.json()["id"] == f"cmpl-{name}"
        assert {gated.watcher.next().request_id for _ in range(2)} == {
            f"cmpl-{name}-0",
            f"cmpl-{name}-1",
        }
        assert len(lines_of(caplog, name)) == 2
    response = running.chat(max_tokens=1)
    name = f"chatcmpl-{response.headers['x-request-id']}"
    assert (response.json()["id"], gated.watcher.next().request_id) == (name, name)
    assert len(lines_of(caplog, name)) == 1


NUM_RANDOM = 300
SHAPES: list[dict[str, Any]] = [
    {"prompt": "hello"},
    {"prompt": ["a", "b", "c"]},
    {"prompt": "hello", "n": 2, "temperature": 1},
    {"prompt": "hello", "temperature": -1},
]


async def test_however_many_end_at_random_each_is_told_once(
    make_server: MakeServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Clients that stay, leave at any moment, are refused, cancelled or late, all at once."""
    caplog.set_level(logging.INFO)
    options = ServerOptions(keep_alive_s=0.01)
    running = make_server(options, step_ms=1, max_num_seqs=4, max_num_queued_reqs=8)
    draw = random.Random(7)
    statuses: Counter[int | str] = Counter()

    async def one(client: httpx.AsyncClient, number: int) -> None:
        name = f"random-{number}-"
        body = {
            **draw.choice(SHAPES),
            "max_tokens": draw.randint(1, 30),
            "ignore_eos": True,
            "stream": draw.random() < 0.5,
            "queue_timeout": draw.choice([None, 0.02, 5.0]),
            "timeout": draw.choice([None, 0.03, 5.0]),
        }
        leaves_after_s = draw.choice([None, 0.0, 0.005, 0.02, 0.05])
        is_cancelled = draw.random() < 0.3
        path, headers = "/v1/completions", {"x-request-id": name}
        try:
            async with asyncio.timeout(leaves_after_s):
                async with client.stream("POST", path, json=body, headers=headers) as response:
                    if is_cancelled:
                        await client.delete(f"/v1/requests/{name}")
                    await response.aread()
                statuses[response.status_code] += 1
        except TimeoutError:
            statuses["left"] += 1

    limits = httpx.Limits(max_connections=60)
    async with httpx.AsyncClient(base_url=running.url, timeout=60, limits=limits) as client:
        await asyncio.gather(*(one(client, number) for number in range(NUM_RANDOM)))
    running.wait_until(lambda: len(running.live) == 0)
    assert {200, 400, 429, "left"} <= statuses.keys() <= {200, 400, 429, 504, "left"}

    told = Counter(
        found.group(1)
        for line in lines_of(caplog, "request cmpl-random-")
        if (found := re.match(r"request (\S+): ", line))
    )
    assert set(told.values()) == {1}
    text = running.metrics()
    assert ended(running) == len(told)
    by_line = Counter(
        re.split(r"[ ,]", line.partition(": ")[2])[0] for line in lines_of(caplog, "cmpl-random-")
    )
    for reason, count in by_line.items():
        assert ended(running, finished_reason=reason) == count, reason
    for gauge in ("num_queued_reqs", "num_queued_tokens"):
        assert running.metric(text, f"wheelpit:{gauge}") == 0
    refused = lines_of(caplog, "refused (queue_full)")
    assert running.metric(text, "wheelpit:admission_rejections_total") == len(refused)


def test_the_series_are_there_before_anything_happened(server: RunningServer) -> None:
    text = server.metrics()
    for kind in ("timeout", "queue_timeout", "ttft_timeout"):
        server.metric(text, "wheelpit:request_timeouts_total", kind=kind)
    for reason in ("queue_full", "queue_tokens", "deadline", "tenant_queue", "tenant_rate"):
        server.metric(text, "wheelpit:admission_rejections_total", reason=reason)
    for name in ("num_queued_reqs", "num_queued_tokens", "queue_drain_rate"):
        server.metric(text, f"wheelpit:{name}", engine="0")
    server.metric(text, "wheelpit:request_success_total", finished_reason="refused")
