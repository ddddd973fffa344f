"""API keys guard every route but the probes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fake_worker import fake_worker
from tests.server.conftest import MakeServer, RunningServer, launch
from wheelpit.server.options import ServerOptions
from wheelpit.server.root_path import route_path

GUARDED = [
    ("GET", "/v1/models"),
    ("POST", "/v1/chat/completions"),
    ("POST", "/v1/completions"),
    ("POST", "/tokenize"),
    ("POST", "/detokenize"),
    ("GET", "/metrics"),
    ("GET", "/load"),
    ("GET", "/openapi.json"),
    ("GET", "/health/"),
    ("GET", "//health"),
    ("GET", "/nothing"),
]


@pytest.fixture(scope="module")
def keyed(model_folder: Path) -> Iterator[RunningServer]:
    running = RunningServer(
        launch(model_folder, fake_worker()), ServerOptions(api_keys=("first", "second"))
    )
    yield running
    running.stop()


def test_every_route_but_the_probes_wants_a_key(keyed: RunningServer) -> None:
    for method, path in GUARDED:
        response = keyed.client.request(method, path)
        assert response.status_code == 401, path
        assert response.json() == {"error": "Unauthorized"}
        assert response.headers["www-authenticate"] == "Bearer"
    for path in ("/health", "/ping", "/version"):
        assert keyed.client.get(path).status_code == 200


def test_any_of_the_keys_opens(keyed: RunningServer) -> None:
    for key in ("first", "second"):
        headers = {"authorization": f"Bearer {key}"}
        assert keyed.client.get("/v1/models", headers=headers).status_code == 200
        assert keyed.client.get("/metrics", headers=headers).status_code == 200


@pytest.mark.parametrize(
    "header", ["", "Bearer", "Bearer third", "Basic first", "first", "Bearer FIRST"]
)
def test_anything_else_does_not(keyed: RunningServer, header: str) -> None:
    response = keyed.client.get("/v1/models", headers={"authorization": header})
    assert response.status_code == 401


def test_options_needs_no_key(keyed: RunningServer) -> None:
    assert keyed.client.options("/v1/models").status_code != 401


def test_preflight_requests_are_answered_for_allowed_origins(make_server: MakeServer) -> None:
    options = ServerOptions(api_keys=("k",), allowed_origins=("https://a.example",))
    running = make_server(options)
    headers = {"origin": "https://a.example", "access-control-request-method": "POST"}
    response = running.client.options("/v1/models", headers=headers)
    assert response.status_code == 200
    assert response.headers["access-control-allow-origin"] == "https://a.example"
    refused = running.client.get("/v1/models", headers={"origin": "https://a.example"})
    assert refused.status_code == 401
    assert refused.headers["access-control-allow-origin"] == "https://a.example"


def test_root_path_does_not_open_or_close_doors(make_server: MakeServer) -> None:
    running = make_server(ServerOptions(api_keys=("k",), root_path="/api"))
    headers = {"authorization": "Bearer k"}
    for prefix in ("", "/api"):
        assert running.client.get(f"{prefix}/health").status_code == 200
        assert running.client.get(f"{prefix}/v1/models").status_code == 401
        assert running.client.get(f"{prefix}/v1/models", headers=headers).status_code == 200


def test_route_path_strips_the_prefix_once() -> None:
    def path(path: str, root_path: str) -> str:
        return route_path({"path": path, "root_path": root_path})

    assert path("/api/health", "/api") == "/health"
    assert path("/api/api/health", "/api") == "/api/health"
    assert path("/apihealth", "/api") == "/apihealth"
    assert path("/health", "") == "/health"
