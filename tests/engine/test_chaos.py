"""An engine that fails on purpose: as often as it is told to, and never with a wrong answer."""

from __future__ import annotations

import pytest

from tests.engine.test_faults import check_streams, start_streams
from tests.fake_worker import fake_worker
from tests.fakes import FakeRunner
from wheelpit.engine.chaos import Chaos, ChaoticRunner, chaos_of
from wheelpit.errors import ConfigError
from wheelpit.scheduling.batch import ScheduledBatch


def test_what_is_typed_is_what_the_worker_reads():
    chaos = Chaos.parse("kill=0.01, slow=0.5")
    assert chaos == Chaos(kill=0.01, hang=0.0, slow=0.5)
    assert chaos.worker[:2] == ("-m", "wheelpit.engine.chaos")
    assert chaos_of([*chaos.worker, "--die-with-parent", "3", "20"]) == chaos


@pytest.mark.parametrize(
    "text",
    [
        *("", "kill", "kill=", "kill=x", "kill=nan", "burn=0.1", "kill=-0.1", "kill=1.1"),
        *("kill=0.1,kill=0.1", "kill=0.5,hang=0.4,slow=0.2"),
    ],
)
def test_what_makes_no_sense_is_refused(text):
    with pytest.raises(ConfigError, match="chaos"):
        Chaos.parse(text)


def test_each_failure_has_its_share_of_the_draws():
    failed: list[str] = []
    draws = [(step + 0.5) / 100 for step in range(100)]
    runner = ChaoticRunner(
        FakeRunner(), Chaos(kill=0.1, hang=0.2, slow=0.3), lambda: draws.pop(0), failed.append
    )
    for _ in range(100):
        assert runner.run(ScheduledBatch(())) == []
    assert failed == ["kill"] * 10 + ["hang"] * 20 + ["slow"] * 30


async def test_streams_survive_an_engine_that_kills_itself(make_engine):
    worker = fake_worker(step_ms=2, chaos="kill=0.02")
    engine = make_engine(worker=worker, max_restarts=10_000, restart_window=0.1)
    prompts, tasks = await start_streams(engine, 4, 120)
    await check_streams(prompts, tasks, 120)
    # Each process draws the same numbers, and dies in its 40th step or so.
    assert engine.health().num_restarts >= 2
