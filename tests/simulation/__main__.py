"""Replay seeds, or hunt through many of them.

python -m tests.simulation SEED                        replay one, with its trace
python -m tests.simulation --seeds 10000 --first 0     run many on all cores
"""

from __future__ import annotations

import argparse
import logging
import sys

from tests.simulation.draw import draw_plan
from tests.simulation.hunt import first_failure, hunt, report_hunt, report_run
from tests.simulation.simulation import run_plan


def main() -> int:
    """Returns the exit status: 1 if something did not hold."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation")
    parser.add_argument("seed", type=int, nargs="?", help="replay this one")
    parser.add_argument("--seeds", type=int, default=1000, help="how many to run")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--until-found", type=int, help="run up to so many, stop at a failure")
    given = parser.parse_args()
    # What the code under test logs of faults that are meant would hide everything else.
    logging.disable(logging.CRITICAL)
    if given.until_found is not None:
        failure = first_failure(range(given.first, given.first + given.until_found))
        lines, is_failure = [failure or "everything held"], failure is not None
    elif given.seed is not None:
        plan = draw_plan(given.seed)
        lines, is_failure = report_run(plan), run_plan(plan).violation is not None
    else:
        found = hunt(given.first, given.seeds)
        lines, is_failure = report_hunt(found), bool(found.violations)
    sys.stdout.write("\n".join(lines) + "\n")
    return int(is_failure)


if __name__ == "__main__":
    sys.exit(main())
