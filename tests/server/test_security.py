"""What a server must not let anybody do, and must not tell."""

from __future__ import annotations

import json
import logging
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fake_worker import EXITS, RAISES, fake_worker
from tests.server.conftest import MakeServer, RunningServer, launch
from tests.server.raw_client import stream
from wheelpit.errors import EngineDeadError, EngineGenerateError, ModelLoadError, ValidationError
from wheelpit.server.auth import OPEN_PATHS
from wheelpit.server.errors import MAX_BODY_BYTES, error_body
from wheelpit.server.options import ServerOptions

ADMIN_ONLY = ("/admin/limits", "/admin/engine", "/admin/restart-engine")
PARAMETERS = {"{request_id:path}": "x", "{name:path}": "x", "{request_id}": "x"}


@pytest.fixture(scope="module")
def keyed(model_folder: Path) -> Iterator[RunningServer]:
    """With everything that can be switched on."""
    options = ServerOptions(
        api_keys=("client",), admin_key="root", enable_docs=True, max_body_bytes=1000
    )
    running = RunningServer(launch(model_folder, fake_worker()), options)
    yield running
    running.stop()


def routes(running: RunningServer) -> list[tuple[str, str]]:
    """(method, path) of every route there is."""
    found = []
    for route in running._server.app.routes:
        path = route.path  # type: ignore[attr-defined]
        for name, value in PARAMETERS.items():
            path = path.replace(name, value)
        assert "{" not in path, path
        found += [(method, path) for method in sorted(route.methods)]  # type: ignore[attr-defined]
    return found


def test_no_route_but_the_probes_answers_without_a_key(keyed: RunningServer) -> None:
    found = routes(keyed)
    assert {path for _, path in found} >= {*OPEN_PATHS, *ADMIN_ONLY, "/docs", "/openapi.json"}
    assert len(found) > 25
    for method, path in found:
        for headers in ({}, {"authorization": "Bearer wrong"}):
            response = keyed.client.request(method, path, headers=headers)
            if path in OPEN_PATHS:
                assert response.status_code == 200, (method, path)
            else:
                assert response.status_code == 401, (method, path)


def test_admin_routes_want_the_admins_key(keyed: RunningServer) -> None:
    found = [(method, path) for method, path in routes(keyed) if path.startswith("/admin/")]
    assert {path for _, path in found} == set(ADMIN_ONLY)
    for method, path in found:
        client = {"authorization": "Bearer client"}
        assert keyed.client.request(method, path, headers=client).status_code == 403
    assert keyed.on_loop(lambda: keyed.engine.health().num_restarts) == 0


def test_every_key_is_compared_whichever_fits(
    keyed: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In constant time: one comparison of digests for each key there is, first or last or none."""
    compared: list[tuple[bytes, bytes]] = []

    def count(a: bytes, b: bytes) -> bool:
        compared.append((a, b))
        return a == b

    monkeypatch.setattr("wheelpit.server.auth.hmac.compare_digest", count)
    for key in ("client", "root", "neither"):
        compared.clear()
        keyed.client.get("/v1/models", headers={"authorization": f"Bearer {key}"})
        assert len(compared) == 2
        assert all(len(a) == len(b) == 32 for a, b in compared)


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions", "/tokenize"])
def test_a_body_that_is_too_long_is_refused(keyed: RunningServer, path: str) -> None:
    headers = {"authorization": "Bearer client", "content-type": "application/json"}
    told = keyed.client.post(path, content=b'"' + b"x" * 2000 + b'"', headers=headers)
    untold = keyed.client.post(path, content=iter([b"x" * 600] * 3), headers=headers)
    for response in (told, untold):
        assert response.status_code == 413
        assert "--max-body-bytes" in response.json()["error"]["message"]


def test_no_other_sites_scripts_are_let_in_by_default(server: RunningServer) -> None:
    origin = {"origin": "https://evil.example", "access-control-request-method": "POST"}
    for method in ("GET", "OPTIONS"):
        response = server.client.request(method, "/v1/models", headers=origin)
        assert not [name for name in response.headers if name.startswith("access-control-")]


ATTACKS = [
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ messages.__init__.__globals__ }}",
    "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
    "{{ lipsum.__globals__['os'].popen('id').read() }}",
    "{% for x in range(10**9) %}{% endfor %}",
    "{% set x = messages.append('more') %}",
    "{% include '/etc/passwd' %}",
]


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_hostile_chat_template_reaches_nothing(
    make_server: MakeServer, tmp_path: Path, attack: str
) -> None:
    path = tmp_path / "evil.jinja"
    path.write_text(attack)
    running = make_server(chat_template=str(path))
    response = running.chat()
    assert response.status_code == 400, response.text
    assert "root:" not in response.text
    assert "subprocess" not in response.text
    assert running.is_serving()


@pytest.mark.parametrize(
    "error",
    [
        ValidationError("\x00" * 5000, parameter="p", value="v"),
        ValidationError("世" * 5000, parameter="\x01" * 5000),
        EngineGenerateError("失敗\x02" * 3000),
        ValueError("x" * 100_000),
        RuntimeError("secret"),
    ],
)
def test_an_error_is_at_most_4_kb(error: Exception) -> None:
    body = error_body(error)
    assert len(body) <= MAX_BODY_BYTES == 4096
    assert json.loads(body)["error"]["message"]
    assert b"secret" not in body


def test_our_faults_name_neither_files_nor_objects() -> None:
    dead = EngineDeadError()
    dead.__cause__ = EngineDeadError(
        f"could not start: ModelLoadError: {__file__} is cut: <Weights at 0x7fabcdef01>"
    )
    errors: list[Exception] = [
        dead,
        ModelLoadError("'/srv/models/private/config.json' is no JSON"),
        EngineGenerateError("in <function f at 0x7f0123456789> of /opt/x/site-packages/y.py"),
    ]
    for error in errors:
        text = error_body(error).decode()
        assert "(a file)" in text
        for part in ("0x7f", ".py", "/srv", "/opt", "tests/"):
            assert part not in text
    # What a client sent may look like a path, and a route is none of ours to hide.
    assert b"/etc/passwd" in error_body(ValidationError("model /etc/passwd"))
    assert b"https://x.example/a/b" in error_body(EngineGenerateError("see https://x.example/a/b"))


def test_faults_over_http_name_neither_files_nor_objects(make_server: MakeServer) -> None:
    running = make_server(max_restarts=0)
    root = str(Path(__file__).parents[2])
    bodies: list[dict[str, Any]] = [
        {"prompt": [RAISES, 5]},
        {"prompt": [999_999]},
        {"prompt": {"a": 1}},
        {"prompt": "x", "logit_bias": {"a": 1}},
        {"prompt": "x", "model": "m" * 100_000},
        {"prompt": [EXITS, 5]},
    ]
    for body in bodies:
        response = running.post("/v1/completions", body)
        assert response.status_code >= 400
        assert len(response.content) <= MAX_BODY_BYTES
        assert root not in response.text
        assert "site-packages" not in response.text
        assert " 0x" not in response.text
    assert response.status_code == 500
    running.join()


SECRET = "xyzzy-plugh"


def test_no_prompt_is_in_the_log_above_debug(
    make_server: MakeServer,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """A whole run: good and bad requests, streams, a crash, an engine that raises, an abort."""
    caplog.set_level(logging.INFO)
    running = make_server(ServerOptions(admin_key="root"), enable_log_requests=True)
    message = {"role": "user", "content": SECRET}
    assert running.complete(prompt=SECRET, echo=True, logprobs=1).status_code == 200
    assert running.complete(prompt=[SECRET] * 3).status_code == 200
    assert running.chat(messages=[message]).status_code == 200
    assert running.complete(prompt=SECRET, stream=True).status_code == 200
    assert running.chat(messages=[{"role": SECRET, "content": SECRET}]).status_code < 500
    for wrong in ({"max_tokens": -1}, {"temperature": 99}, {"n": 0}, {"model": "none"}):
        assert running.complete(prompt=SECRET, **wrong).status_code in (400, 404)
    assert running.complete(prompt={SECRET: SECRET}).status_code == 400
    assert running.complete(prompt=SECRET * 300).status_code == 400
    assert running.post("/tokenize", {"prompt": SECRET}).status_code == 200
    assert running.complete(prompt=[RAISES, *SECRET.encode()]).status_code == 500
    with stream(running, prompt=SECRET) as leaving:
        leaving.read_until(b"data: ")
        os.kill(running.engine.engine_pid, signal.SIGKILL)
    assert running.is_serving()
    running.stop()
    written = capfd.readouterr()
    everything = "\n".join([caplog.text, written.out, written.err])
    assert "request cmpl-" in caplog.text
    assert "told to raise" in everything
    assert SECRET not in everything
