"""Limits are shown and changed while the server runs, by the admin alone."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.server.conftest import GatedServer, MakeGated, MakeServer, RunningServer
from tests.server.raw_client import FIRST_TOKEN, complete, stream
from wheelpit.server.options import ServerOptions

ROOT = {"authorization": "Bearer root"}

TENANTS = """
[default]
max_queued = 30
[tenants.red]
api_keys = ["red"]
weight = 2.0
"""


@pytest.fixture(autouse=True)
def log_level() -> Iterator[None]:
    """Put back what a test changes for the whole process."""
    logger = logging.getLogger("wheelpit")
    before = logger.level
    logger.setLevel(logging.WARNING)
    yield
    logger.setLevel(before)


@pytest.fixture
def gated(make_gated: MakeGated, tmp_path: Path) -> GatedServer:
    path = tmp_path / "tenants.toml"
    path.write_text(TENANTS)
    return make_gated(
        ServerOptions(admin_key="root"),
        max_num_seqs=1,
        max_num_queued_reqs=9,
        default_timeout=60.0,
        tenant_config=str(path),
    )


@pytest.fixture
def running(gated: GatedServer) -> RunningServer:
    return gated.server


def patch(running: RunningServer, **fields: Any) -> httpx.Response:
    return running.client.patch("/admin/limits", json=fields, headers=ROOT)


def test_what_holds_is_shown(running: RunningServer) -> None:
    response = running.client.get("/admin/limits", headers=ROOT)
    assert response.status_code == 200
    unlimited = {"max_running": None, "max_queued": None, "tokens_per_minute": None}
    assert response.json() == {
        "max_num_queued_reqs": 9,
        "max_num_queued_tokens": None,
        "default_timeout": 60.0,
        "default_queue_timeout": None,
        "default_ttft_timeout": None,
        "refuse_late": False,
        "default_tenant": {"weight": 1.0, **unlimited, "max_queued": 30},
        "tenants": {"red": {"weight": 2.0, **unlimited}},
        "log_level": logging.getLevelName(
            logging.getLogger("wheelpit").getEffectiveLevel()
        ).lower(),
    }


def test_what_changes_is_logged_with_its_old_and_new_value(
    running: RunningServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="wheelpit")
    response = patch(
        running,
        max_num_queued_reqs=2,
        max_num_queued_tokens=1000,
        default_timeout=None,
        default_ttft_timeout=5,
        refuse_late=True,
        default_tenant={"max_queued": None},
        tenants={"red": {"max_running": 3}, "blue": {"tokens_per_minute": 600}},
    )
    assert response.status_code == 200
    after = response.json()
    assert after == running.client.get("/admin/limits", headers=ROOT).json()
    assert (after["max_num_queued_reqs"], after["max_num_queued_tokens"]) == (2, 1000)
    assert (after["default_timeout"], after["default_ttft_timeout"]) == (None, 5.0)
    # What is left out of a tenant stays; a new one has the default for the rest.
    assert (after["tenants"]["red"]["weight"], after["tenants"]["red"]["max_running"]) == (2.0, 3)
    assert after["tenants"]["blue"]["weight"] == 1.0
    assert after["default_tenant"]["max_queued"] is None
    changes = [message for message in caplog.messages if message.startswith("limit ")]
    assert "limit max_num_queued_reqs: 9 -> 2" in changes
    assert "limit default_timeout_s: 60.0 -> None" in changes
    assert "limit refuse_late: False -> True" in changes
    assert any(change.startswith("limit tenants.red: TenantLimits(") for change in changes)
    assert len(changes) == 8

    caplog.clear()
    assert patch(running, tenants={"red": None, "unknown": None}).status_code == 200
    assert list(running.engine.limits.tenants) == ["blue"]
    assert len([message for message in caplog.messages if message.startswith("limit ")]) == 1
    caplog.clear()
    assert patch(running, max_num_queued_reqs=2).status_code == 200
    assert patch(running).status_code == 200
    assert not [message for message in caplog.messages if message.startswith("limit ")]


def test_a_change_holds_from_the_next_request_on(gated: GatedServer) -> None:
    """Who waits already stays, though there is no room for them any more."""
    running = gated.server
    gated.gate.step(1)
    # The file has a key, so a key is asked for.
    with stream(running, ROOT) as holder, complete(running, ROOT), complete(running, ROOT):
        holder.read_until(FIRST_TOKEN)
        running.wait_until(lambda: running.engine.stats().num_queued == 2)
        assert patch(running, max_num_queued_reqs=1).status_code == 200
        refused = running.post("/v1/completions", {"prompt": "x"}, **ROOT)
        assert refused.json()["error"]["reason"] == "queue_full"
        assert running.on_loop(lambda: running.engine.stats().num_queued) == 2
        assert patch(running, max_num_queued_reqs=None).status_code == 200
        with complete(running, ROOT):
            running.wait_until(lambda: running.engine.stats().num_queued == 3)


def test_a_new_default_timeout_ends_requests_without_one(gated: GatedServer) -> None:
    running = gated.server
    assert patch(running, default_ttft_timeout=0.05).status_code == 200
    response = running.post("/v1/completions", {"prompt": "x"}, **ROOT)
    assert response.status_code == 504


@pytest.mark.parametrize(
    ("fields", "parameter"),
    [
        ({"max_num_queued_reqs": -1}, "max_num_queued_reqs"),
        ({"max_num_queued_reqs": 1.5}, "max_num_queued_reqs"),
        ({"max_num_queued_reqs": "9"}, "max_num_queued_reqs"),
        ({"max_num_queued_tokens": 0}, "max_num_queued_tokens"),
        ({"default_timeout": 0}, "default_timeout"),
        ({"default_queue_timeout": -1.0}, "default_queue_timeout"),
        ({"default_ttft_timeout": "1"}, "default_ttft_timeout"),
        ({"refuse_late": None}, "refuse_late"),
        ({"tenants": {"red": {"weight": 0}}}, "tenants.red.weight"),
        ({"tenants": {"new": {"max_running": 0}}}, "tenants.new.max_running"),
        ({"tenants": None}, "tenants"),
        ({"default_tenant": {"tokens_per_minute": 0}}, "default_tenant.tokens_per_minute"),
        ({"log_level": "loud"}, "log_level"),
        ({"log_level": None}, "log_level"),
        ({"max_num_queue_reqs": 5}, "max_num_queue_reqs"),
        ({"default_tenant": {"weigth": 1}}, "default_tenant.weigth"),
    ],
    ids=str,
)
def test_a_bad_value_is_a_400_that_names_its_field_and_nothing_changes(
    running: RunningServer, fields: dict[str, Any], parameter: str
) -> None:
    before = running.engine.limits
    good = {"max_num_queued_tokens": 7, "refuse_late": True, "tenants": {"blue": {"weight": 3}}}
    response = patch(running, **{**good, **fields})
    assert response.status_code == 400, response.text
    assert response.json()["error"]["param"] == parameter
    assert running.engine.limits == before


def test_the_body_must_be_an_object(running: RunningServer) -> None:
    for content in ("[]", "1", "{", ""):
        headers = {**ROOT, "content-type": "application/json"}
        response = running.client.patch("/admin/limits", content=content, headers=headers)
        assert response.status_code == 400


def test_the_log_level_is_changed_and_said_at_a_level_that_is_seen(
    running: RunningServer, caplog: pytest.LogCaptureFixture
) -> None:
    logging.getLogger("wheelpit").setLevel(logging.INFO)
    for level in ("error", "debug", "warning", "info"):
        caplog.clear()
        old = running.client.get("/admin/limits", headers=ROOT).json()["log_level"]
        assert patch(running, log_level=level).json()["log_level"] == level
        assert f"limit log_level: {old} -> {level}" in caplog.messages
        expected = logging.getLevelNamesMapping()[level.upper()]
        assert logging.getLogger("wheelpit.server.app").isEnabledFor(expected)
        assert not logging.getLogger("wheelpit.server.app").isEnabledFor(expected - 1)


def test_only_the_admins_key_opens_it(gated: GatedServer) -> None:
    running = gated.server
    for method in ("GET", "PATCH"):
        assert running.client.request(method, "/admin/limits").status_code == 401
        headers = {"authorization": "Bearer red"}
        response = running.client.request(method, "/admin/limits", headers=headers)
        assert response.status_code == 403
        assert response.json()["error"]["type"] == "PermissionDeniedError"
    assert running.client.get("/admin/other", headers=ROOT).status_code == 404
    assert running.client.post("/admin/limits", headers=ROOT).status_code == 405


def test_without_an_admin_key_there_is_no_such_route(
    server: RunningServer, make_server: MakeServer
) -> None:
    keyed = make_server(ServerOptions(api_keys=("k",)))
    headers = {"authorization": "Bearer k"}
    for response in (
        server.client.get("/admin/limits"),
        server.client.patch("/admin/limits", json={}),
        keyed.client.get("/admin/limits", headers=headers),
    ):
        assert response.status_code == 404
    assert keyed.client.get("/admin/limits").status_code == 401
    assert "/admin/limits" not in server.client.get("/openapi.json").json()["paths"]


def test_the_description_has_the_new_routes_and_fields(running: RunningServer) -> None:
    described = running.client.get("/openapi.json", headers=ROOT).json()
    paths = described["paths"]
    assert set(paths["/admin/limits"]) == {"get", "patch"}
    assert "post" in paths["/v1/requests/{request_id}/cancel"]
    assert "delete" in paths["/v1/requests/{request_id}"]
    schemas = described["components"]["schemas"]
    answers = paths["/v1/completions"]["post"]["responses"]
    assert {"200", "400", "404", "429", "504"} <= set(answers)
    reference = answers["429"]["content"]["application/json"]["schema"]["$ref"]
    assert reference.rpartition("/")[2] in schemas
    for name in ("ChatRequest", "CompletionRequest"):
        for field in ("timeout", "queue_timeout", "ttft_timeout"):
            assert field in schemas[name]["properties"]
    for reference in ("LimitsPatch", "LimitsAnswer", "CancelAnswer", "TenantPatch"):
        assert reference in schemas
