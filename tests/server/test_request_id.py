"""One id for a request: header in, body, engine, header out."""

from __future__ import annotations

from typing import Any

import pytest

from tests.server.conftest import MakeServer, RunningServer
from tests.server.sse_reader import events_of
from tests.server.watcher import Watcher
from wheelpit.server.options import ServerOptions


def test_the_header_names_the_request_everywhere(make_server: MakeServer) -> None:
    running = make_server()
    watcher = Watcher()
    running.engine.add_stat_logger(watcher)
    body: dict[str, Any] = {"prompt": "hi", "request_id": "from-body"}
    response = running.post("/v1/completions", body, **{"X-Request-Id": "from-header"})
    assert response.headers["x-request-id"] == "from-header"
    assert response.json()["id"] == "cmpl-from-header"
    assert watcher.next().request_id == "cmpl-from-header-0"

    response = running.chat(request_id="from-body")
    assert response.headers["x-request-id"] == "from-body"
    assert response.json()["id"] == "chatcmpl-from-body"
    assert watcher.next().request_id == "chatcmpl-from-body"


def test_without_one_a_random_id_is_the_same_in_body_and_header(server: RunningServer) -> None:
    response = server.chat()
    assert response.json()["id"] == f"chatcmpl-{response.headers['x-request-id']}"
    stream = server.chat(stream=True)
    ids = {event["id"] for event in events_of(stream)}
    assert ids == {f"chatcmpl-{stream.headers['x-request-id']}"}
    assert stream.headers["x-request-id"] != response.headers["x-request-id"]


def test_errors_carry_the_id_too(server: RunningServer) -> None:
    response = server.client.get("/nothing", headers={"X-Request-Id": "lost"})
    assert response.headers["x-request-id"] == "lost"
    assert server.complete(n=0, request_id="bad").headers["x-request-id"] == "bad"


@pytest.mark.parametrize("given", ["", "a b", "x" * 257, "caf\xe9", "a\tb"])
def test_an_unusable_id_is_refused_and_not_echoed(server: RunningServer, given: str) -> None:
    headers = {b"x-request-id": given.encode("latin-1")}
    response = server.client.post("/v1/completions", json={"prompt": "x"}, headers=headers)
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "X-Request-Id"
    assert response.headers["x-request-id"] not in ("", given)
    # Probes do not care.
    assert server.client.get("/health", headers=headers).status_code == 200


def test_the_same_id_may_be_used_twice_at_once(server: RunningServer) -> None:
    first = server.complete(request_id="twice", prompt=["a", "b"])
    second = server.complete(request_id="twice", prompt=["a", "b"])
    assert first.status_code == second.status_code == 200


def test_the_header_can_be_switched_off(make_server: MakeServer) -> None:
    running = make_server(ServerOptions(enable_request_id_headers=False))
    assert "x-request-id" not in running.chat().headers
