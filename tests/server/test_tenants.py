"""Whose request it is: by the API key, else by the body's user; and what that changes."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from tests.server.conftest import GatedServer, MakeGated, MakeServer, RunningServer
from tests.server.raw_client import FIRST_TOKEN, cancel, complete, stream
from tests.server.watcher import Watcher
from wheelpit.errors import ConfigError
from wheelpit.server.auth import ADMIN, ANYBODY, Keyring, Principal, tenant_of
from wheelpit.server.options import ServerOptions

TENANTS = """
[default]
max_queued = 3
[tenants.red]
api_keys = ["red-secret-1", "red-secret-2"]
max_queued = 1
[tenants.blue]
api_keys = ["blue-secret"]
tokens_per_minute = 100
"""


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


@pytest.fixture
def tenant_file(tmp_path: Path) -> str:
    path = tmp_path / "tenants.toml"
    path.write_text(TENANTS)
    return str(path)


@pytest.fixture
def keyed(make_gated: MakeGated, tenant_file: str) -> GatedServer:
    """One seat, two tenants with keys and two keys without a tenant."""
    options = ServerOptions(api_keys=("plain-secret-1", "plain-secret-2"), admin_key="root-secret")
    return make_gated(options, max_num_seqs=1, tenant_config=tenant_file)


@pytest.mark.parametrize(
    ("key", "tenant"),
    [
        ("red-secret-1", "red"),
        ("red-secret-2", "red"),
        ("blue-secret", "blue"),
        ("plain-secret-1", "key-1"),
        ("plain-secret-2", "key-2"),
        ("root-secret", "admin"),
    ],
)
def test_a_key_opens_and_says_who_it_is(
    keyed: GatedServer, key: str, tenant: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever the body's user says: anybody can write that."""
    caplog.set_level(logging.DEBUG, logger="wheelpit")
    keyed.gate.open()
    running = keyed.server
    body = {"prompt": "x", "user": "somebody-else", "max_tokens": 2}
    response = running.post("/v1/completions", body, **bearer(key))
    assert response.status_code == 200
    assert keyed.watcher.next().tenant == tenant
    text = running.client.get("/metrics", headers=bearer(key)).text
    assert not [line for line in [*caplog.messages, *text.splitlines()] if "secret" in line]
    assert f"tenant {tenant}" in caplog.text


def test_no_key_and_a_wrong_one_are_401(keyed: GatedServer) -> None:
    running = keyed.server
    assert running.complete().status_code == 401
    response = running.post("/v1/completions", {"prompt": "x"}, **bearer("red-secret"))
    assert response.status_code == 401
    assert cancel(running, "x").status_code == 401
    assert keyed.watcher.is_empty()


def test_a_tenant_file_alone_asks_for_keys(make_server: MakeServer, tenant_file: str) -> None:
    running = make_server(tenant_config=tenant_file)
    assert running.complete().status_code == 401
    response = running.post("/v1/completions", {"prompt": "x"}, **bearer("blue-secret"))
    assert response.status_code == 200


def test_one_tenants_queue_is_full_and_anothers_is_not(keyed: GatedServer) -> None:
    running = keyed.server
    keyed.gate.step(1)
    with (
        stream(running, bearer("blue-secret"), prompt="x") as holder,
        complete(running, bearer("red-secret-1")),
    ):
        holder.read_until(FIRST_TOKEN)
        running.wait_until(lambda: running.engine.stats().num_queued == 1)
        refused = running.post("/v1/completions", {"prompt": "x"}, **bearer("red-secret-2"))
        assert refused.status_code == 429
        assert refused.json()["error"]["reason"] == "tenant_queue"
        with complete(running, bearer("plain-secret-1")):
            running.wait_until(lambda: running.engine.stats().num_queued == 2)
        text = running.client.get("/metrics", headers=bearer("plain-secret-1")).text
        name = "wheelpit:admission_rejections_total"
        assert running.metric(text, name, reason="tenant_queue") == 1


def test_a_tenants_tokens_a_minute_are_used_up_by_itself_alone(keyed: GatedServer) -> None:
    running = keyed.server
    keyed.gate.open()
    body = {"prompt": [5] * 200, "max_tokens": 1}
    assert running.post("/v1/completions", body, **bearer("blue-secret")).status_code == 200
    refused = running.post("/v1/completions", body, **bearer("blue-secret"))
    assert refused.status_code == 429
    assert refused.json()["error"]["reason"] == "tenant_rate"
    # A hundred tokens too many, at a hundred a minute.
    assert 1 < int(refused.headers["retry-after"]) <= 61
    assert running.post("/v1/completions", body, **bearer("red-secret-1")).status_code == 200


@pytest.fixture
def watched(make_server: MakeServer) -> tuple[RunningServer, Watcher]:
    """A server without keys."""
    running = make_server()
    watcher = Watcher()
    running.engine.add_stat_logger(watcher)
    return running, watcher


def test_without_keys_the_user_is_the_tenant(watched: tuple[RunningServer, Watcher]) -> None:
    running, watcher = watched
    for user, tenant in (("ann", "ann"), (None, ""), ("", "")):
        assert running.chat(user=user).status_code == 200
        assert watcher.next().tenant == tenant


@pytest.mark.parametrize("user", ["x" * 65, "line\nrequest x: stop", "caf\u00e9", "\ud83d"])
def test_a_user_that_is_unfit_for_the_log_is_told_by_a_digest(user: str) -> None:
    name = tenant_of(ANYBODY, user)
    assert name.startswith("user-")
    assert name.isascii()
    assert name.isprintable()
    assert len(name) == 21
    assert name == tenant_of(ANYBODY, user)
    assert name != tenant_of(ANYBODY, user + "x")


def test_who_has_a_key_is_who_the_key_says() -> None:
    assert tenant_of(Principal("red"), "blue") == "red"
    assert tenant_of(ADMIN, "blue") == "admin"


def test_the_admins_key_must_be_no_clients_key() -> None:
    for keys in ({"api_keys": ["a"]}, {"tenant_keys": {Keyring.digest("a"): "red"}}):
        given = {"api_keys": [], "tenant_keys": {}, **keys}
        with pytest.raises(ConfigError, match="admin_key"):
            Keyring(**given, admin_key="a")  # type: ignore[arg-type]


def test_with_an_admin_key_alone_everything_else_is_open(make_server: MakeServer) -> None:
    running = make_server(ServerOptions(admin_key="root"))
    assert running.complete().status_code == 200
    assert running.client.get("/admin/limits").status_code == 401
    wrong = running.client.get("/admin/limits", headers=bearer("guess"))
    assert wrong.status_code == 401
    assert running.post("/v1/completions", {"prompt": "x"}, **bearer("root")).status_code == 200
