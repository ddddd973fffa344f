"""What the probes say in each state of the engine, and that they say it without a queue."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fake_worker import fake_worker
from tests.server.conftest import MakeGated, MakeServer, RunningServer, launch
from tests.server.raw_client import FIRST_TOKEN, complete, stream
from tests.server.scripted_engine import ScriptedEngine, delta
from wheelpit.engine.supervisor import EngineState
from wheelpit.request import RequestOutput
from wheelpit.server.health import unreadiness
from wheelpit.server.options import ServerOptions


def ready(running: RunningServer) -> tuple[int, Any]:
    response = running.client.get("/health/ready")
    return response.status_code, response.json()


def progress(running: RunningServer, **headers: str) -> dict[str, Any]:
    response = running.client.get("/health/progress", headers=headers)
    assert response.status_code == 200
    answer: dict[str, Any] = response.json()
    return answer


def test_all_is_well_before_the_first_request(make_server: MakeServer) -> None:
    running = make_server()
    assert running.client.get("/health/live").json() == {"live": True}
    assert ready(running) == (200, {"ready": True, "reason": None})
    told = progress(running)
    assert told.pop("heartbeat_age_s") >= 0.0
    assert told == {
        "engine_state": "serving",
        "is_stalled": False,
        "num_restarts": 0,
        "num_requests": 0,
        "oldest_unprogressed": None,
    }
    for path in ("live", "ready", "progress"):
        head = running.client.head(f"/health/{path}")
        assert (head.status_code, head.content) == (200, b"")


def test_an_engine_that_dies_before_the_first_request_is_noticed(make_server: MakeServer) -> None:
    running = make_server()
    os.kill(running.engine.engine_pid, signal.SIGKILL)
    running.wait_until(lambda: running.engine.health().num_restarts == 1)
    running.wait_until(lambda: running.engine.health().state is EngineState.SERVING)
    assert ready(running)[0] == 200


def test_a_full_queue_is_not_ready_until_there_is_room(make_gated: MakeGated) -> None:
    gated = make_gated(max_num_seqs=1, max_num_queued_reqs=1)
    running = gated.server
    gated.gate.step(1)
    with stream(running) as holder:
        holder.read_until(FIRST_TOKEN)
        assert ready(running)[0] == 200
        with complete(running):
            running.wait_until(lambda: running.engine.stats().num_queued == 1)
            assert ready(running) == (503, {"ready": False, "reason": "full"})
            assert running.complete().status_code == 429
            assert running.client.get("/health").status_code == 200
        running.wait_until(lambda: running.engine.stats().num_queued == 0)
        assert ready(running)[0] == 200


def test_a_full_queue_of_tokens_is_not_ready_either(make_gated: MakeGated) -> None:
    gated = make_gated(max_num_seqs=1, max_num_queued_tokens=4)
    running = gated.server
    gated.gate.step(1)
    with stream(running) as holder:
        holder.read_until(FIRST_TOKEN)
        with complete(running, prompt=[5, 6, 7, 8]):
            running.wait_until(lambda: running.engine.stats().num_queued == 1)
            assert ready(running) == (503, {"ready": False, "reason": "full"})
            assert running.complete().status_code == 429


def test_progress_names_who_has_waited_longest(make_gated: MakeGated) -> None:
    """First the one that runs; once it had a token, the one that waits behind it."""
    gated = make_gated(max_num_seqs=1)
    running = gated.server
    with stream(running, {"x-request-id": "first"}) as first:
        running.wait_until(lambda: len(running.live.engine_ids) == 1)
        oldest = progress(running)["oldest_unprogressed"]
        assert oldest["request_id"] == "cmpl-first-0"
        with complete(running, {"x-request-id": "second"}):
            running.wait_until(lambda: running.engine.stats().num_queued >= 1)
            running.wait_until(lambda: len(running.live.engine_ids) == 2)
            gated.gate.step(1)
            first.read_until(FIRST_TOKEN)
            told = progress(running)
            assert told["num_requests"] == 2
            assert told["oldest_unprogressed"]["request_id"] == "cmpl-second-0"
            assert told["oldest_unprogressed"]["state"] == "queued"
            younger = told["oldest_unprogressed"]["age_s"]
            assert progress(running)["oldest_unprogressed"]["age_s"] >= younger


@pytest.fixture(scope="module")
def keyed(model_folder: Path) -> Iterator[RunningServer]:
    running = RunningServer(
        launch(model_folder, fake_worker(step_ms=20)),
        ServerOptions(api_keys=("client",), admin_key="root"),
    )
    yield running
    running.stop()


def test_whose_request_is_slow_is_nobody_elses_business(keyed: RunningServer) -> None:
    key = {"authorization": "Bearer client"}
    with stream(keyed, {"x-request-id": "mine", **key}) as running:
        running.read_until(FIRST_TOKEN)
        for headers in ({}, key):
            oldest = progress(keyed, **headers)["oldest_unprogressed"]
            assert oldest["request_id"] is None
            assert oldest["state"] == "running"
        oldest = progress(keyed, authorization="Bearer root")["oldest_unprogressed"]
        assert oldest["request_id"] == "cmpl-mine-0"


def test_a_restart_is_not_ready_but_healthy(make_server: MakeServer, tmp_path: Path) -> None:
    """The next engine loads until the test has seen what is said meanwhile."""
    gate = tmp_path / "gate"
    running = make_server()
    os.mkfifo(gate)
    # The engines after the first one wait.
    engines = running.engine._link._engines
    engines.worker = tuple(fake_worker(fails=f"waits:{gate}"))
    running.on_loop(engines.close)
    running.wait_until(lambda: running.engine.health().state is EngineState.LOADING)
    assert ready(running) == (503, {"ready": False, "reason": "restarting"})
    assert running.client.get("/health").status_code == 200
    assert running.client.get("/health/live").status_code == 200
    assert progress(running)["engine_state"] == "loading"
    with complete(running, max_tokens=2) as waiting:
        running.wait_until(lambda: running.engine.stats().num_requests == 1)
        assert progress(running)["oldest_unprogressed"]["state"] == "waiting for the engine"
        gate.write_bytes(b"")
        assert waiting.answer().status_code == 200
    assert ready(running)[0] == 200
    assert progress(running)["num_restarts"] == 1


async def says_nothing() -> AsyncGenerator[RequestOutput, None]:
    yield delta("", finish_reason="stop")


@pytest.mark.parametrize(
    ("state", "changes", "reason"),
    [
        (EngineState.SERVING, {}, None),
        (EngineState.SERVING, {"is_full": True}, "full"),
        (EngineState.SERVING, {"is_stalled": True, "is_full": True}, "hanging"),
        (EngineState.WAITING, {}, "restarting"),
        (EngineState.LOADING, {"is_full": True}, "restarting"),
        (EngineState.DEAD, {"errored": True}, "dead"),
        (EngineState.DEAD, {"errored": True, "is_admitting": False}, "draining"),
    ],
)
def test_the_reason_that_lasts_longest_is_told(
    model_folder: Path, state: EngineState, changes: dict[str, bool], reason: str | None
) -> None:
    engine = ScriptedEngine(model_folder, says_nothing)
    engine.state = state
    for name, value in changes.items():
        assert hasattr(engine, name)
        setattr(engine, name, value)
    assert unreadiness(engine) == reason


def test_a_server_whose_engine_is_dead_for_good_ends_with_code_1(make_server: MakeServer) -> None:
    running = make_server(engine_stall_timeout=0.3, max_restarts=0)
    assert running.is_serving()
    os.kill(running.engine.engine_pid, signal.SIGSTOP)
    with complete(running) as waiting:
        assert waiting.answer().status_code == 500
    running.join()
    assert running.exit_code == 1
