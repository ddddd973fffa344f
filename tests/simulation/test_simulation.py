"""A few hundred seeds of the simulation, and that a seed decides everything."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.simulation.draw import draw_plan
from tests.simulation.hunt import report_run, run_seeds
from tests.simulation.mutants import ROOT, all_mutants, check_applies, judge
from tests.simulation.shrink import shrink
from tests.simulation.simulation import run_plan


def test_whatever_happens_every_promise_is_kept():
    found = run_seeds(range(300))
    assert found.violations == {}
    assert found.num_events > 20_000


def test_a_replay_is_the_same_in_another_process():
    seeds = [3, 54, 86, 333]
    here = "\n".join(line for seed in seeds for line in report_run(draw_plan(seed)))
    script = (
        "import logging; logging.disable(logging.CRITICAL)\n"
        "from tests.simulation.draw import draw_plan\n"
        "from tests.simulation.hunt import report_run\n"
        f"print('\\n'.join(line for seed in {seeds} for line in report_run(draw_plan(seed))))\n"
    )
    for hash_seed in ("0", "12345"):
        done = subprocess.run(
            [sys.executable, "-c", script],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.rstrip("\n") == here
    assert here.count("\n") > 200


def test_every_mutant_can_still_be_made():
    """Whoever changes a line that one of them breaks, breaks it anew."""
    problems = {mutant.name: check_applies(mutant) for mutant in all_mutants()}
    assert len(problems) >= 14
    assert [name for name, problem in problems.items() if problem] == []


@pytest.mark.parametrize("name", ["dropped_abort", "missed_wake_up", "restart_forgets_tenants"])
def test_a_bug_is_found_soon(name):
    """The rest of them is `make simulate-mutants`."""
    (mutant,) = (mutant for mutant in all_mutants() if mutant.name == name)
    verdict = judge(mutant, max_seeds=60)
    assert verdict.num_seeds is not None, verdict.words


def test_a_plan_is_shrunk_to_what_its_failure_needs():
    """As if several completions and a companion were a failure."""

    def fails(plan):
        return len(plan.requests) > 1 and any(request.n > 1 for request in plan.requests)

    plan = next(plan for plan in map(draw_plan, range(100)) if fails(plan) and plan.faults)
    small = shrink(plan, fails)
    assert len(small.requests) == 2
    assert sorted(request.n > 1 for request in small.requests) == [False, True]
    assert small.faults == small.orders == ()
    assert run_plan(small).violation is None
