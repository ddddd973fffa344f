"""The engine process, shown and replaced over HTTP while streams run."""

from __future__ import annotations

import json

import httpx
import pytest

from tests.server.conftest import MakeServer, RunningServer
from tests.server.raw_client import FIRST_TOKEN, RawClient, stream
from wheelpit.server.options import ServerOptions

ROOT = {"authorization": "Bearer root"}


@pytest.fixture
def running(make_server: MakeServer) -> RunningServer:
    return make_server(ServerOptions(admin_key="root"), step_ms=10, max_num_seqs=8)


def described(running: RunningServer) -> dict[str, object]:
    response = running.client.get("/admin/engine", headers=ROOT)
    assert response.status_code == 200
    answer: dict[str, object] = response.json()
    return answer


def test_the_engine_is_shown(running: RunningServer) -> None:
    told = described(running)
    assert told.pop("heartbeat_age_s") >= 0.0  # type: ignore[operator]
    assert told == {
        "pid": running.engine.engine_pid,
        "state": "serving",
        "num_restarts": 0,
        "is_stalled": False,
        "num_requests": 0,
        "dtype": "float32",
        "device": "cpu",
    }


def token_ids(client: RawClient) -> list[int]:
    """Every token of a stream, after its end."""
    with client:
        answer: httpx.Response = client.answer()
    lines = answer.text.splitlines()
    assert lines[-2] == "data: [DONE]"
    chunks = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
    return [token for chunk in chunks for token in chunk["choices"][0].get("token_ids", ())]


@pytest.mark.parametrize(
    "sampling", [{"temperature": 0, "seed": 3}, {"temperature": 1.0, "seed": 5}]
)
def test_streams_go_on_when_the_engine_is_replaced(
    running: RunningServer, sampling: dict[str, object]
) -> None:
    """Twice in the middle of eight streams: every one has the tokens it would have had."""
    bodies = [{"prompt": [5 + index, 6, 7], "max_tokens": 80, **sampling} for index in range(8)]
    alone = [stream(running, **body) for body in bodies[:2]]
    undisturbed = [token_ids(client) for client in alone]
    clients = [stream(running, **body) for body in bodies]
    pids = {running.engine.engine_pid}
    for client in clients:
        client.read_until(FIRST_TOKEN)
    for count in (1, 2):
        response = running.client.post("/admin/restart-engine", headers=ROOT)
        assert response.status_code == 200
        told = response.json()
        assert (told["num_restarts"], told["state"]) == (count, "loading")
        assert told["num_requests"] == 8
        running.wait_until(lambda: running.engine.health().state.value == "serving")
        pids.add(described(running)["pid"])
    answers = [token_ids(client) for client in clients]
    assert len(pids) == 3
    assert [len(answer) for answer in answers] == [80] * 8
    assert answers[:2] == undisturbed
    assert described(running)["num_requests"] == 0


def test_without_the_admin_key_nothing_is_shown_or_replaced(running: RunningServer) -> None:
    for method, path in (("GET", "/admin/engine"), ("POST", "/admin/restart-engine")):
        assert running.client.request(method, path).status_code == 401
        wrong = {"authorization": "Bearer wrong"}
        assert running.client.request(method, path, headers=wrong).status_code == 401
    assert described(running)["num_restarts"] == 0


def test_without_an_admin_key_there_are_no_such_routes(server: RunningServer) -> None:
    assert server.client.get("/admin/engine").status_code == 404
    assert server.client.post("/admin/restart-engine").status_code == 404
