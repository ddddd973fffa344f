"""Every route with what our own description of it allows, and with what it does not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import status_code_conformance

from tests.fake_worker import fake_worker
from tests.server.conftest import RunningServer, launch
from wheelpit.server.options import ServerOptions

ROOT = {"authorization": "Bearer root"}
SETTINGS = settings(
    max_examples=400,
    deadline=None,
    derandomize=True,
    database=None,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(scope="module")
def running(model_folder: Path) -> Iterator[RunningServer]:
    """With an admin's routes, and limits that what is generated here does not change for long."""
    engine = launch(model_folder, fake_worker(), max_restarts=1_000_000, restart_window=0.001)
    server = RunningServer(engine, ServerOptions(admin_key="root"))
    yield server
    server.stop()


def operations(running: RunningServer) -> list[Any]:
    response = running.client.get("/openapi.json", headers=ROOT)
    schema = schemathesis.openapi.from_dict(response.json())
    found = [result.ok() for result in schema.get_all_operations()]
    assert len(found) >= 15
    return found


@pytest.mark.parametrize(
    ("mode", "num_operations"), [(GenerationMode.POSITIVE, 15), (GenerationMode.NEGATIVE, 5)]
)
def test_every_route_answers_as_it_is_described(
    running: RunningServer, mode: GenerationMode, num_operations: int
) -> None:
    """No 5xx but those that are described: limits that are drawn here may refuse what follows.

    Only what has a body can be drawn wrong.
    """
    drawn = st.one_of([each.as_strategy(generation_mode=mode) for each in operations(running)])
    seen: set[str] = set()

    @SETTINGS
    @given(case=drawn)
    def check(case: Any) -> None:
        if case.path == "/admin/restart-engine" and case.operation.label in seen:
            return  # once is enough: each costs a second
        if isinstance(case.body, dict):
            # What takes long is not what is looked for.
            case.body.pop("log_level", None)
        seen.add(case.operation.label)
        response = case.call(base_url=running.url, headers=ROOT, timeout=60)
        described = case.operation.definition.raw["responses"]
        is_expected = response.status_code < 500 or str(response.status_code) in described
        assert is_expected, (case.operation.label, response.text)
        if mode is GenerationMode.POSITIVE and response.status_code < 400:
            case.validate_response(response, checks=[status_code_conformance])

    check()
    assert len(seen) >= num_operations
    assert running.client.get("/health/ready", headers=ROOT).status_code == 200
