"""A few hundred seeds of the simulation, and that a seed decides everything."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.simulation.draw import draw_plan
from tests.simulation.hunt import report_run, run_seeds

ROOT = Path(__file__).resolve().parents[2]


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
