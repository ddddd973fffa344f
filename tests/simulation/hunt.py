"""Run many seeds on all cores; say what was found, with the shortest trace that shows it."""

from __future__ import annotations

import logging
import os
import time
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, fields

from tests.simulation.draw import draw_plan
from tests.simulation.plan import Plan
from tests.simulation.shrink import PLAIN, shrink
from tests.simulation.simulation import run_plan

SEEDS_AT_A_TIME = 250


@dataclass(frozen=True, slots=True)
class Found:
    """What a range of seeds brought. violations: seed -> what did not hold."""

    num_seeds: int
    num_events: int
    seconds: float
    endings: Counter[str]
    violations: dict[int, str]


def hunt(first: int, num_seeds: int, num_processes: int | None = None) -> Found:
    """Run seeds [first, first + num_seeds) in as many processes as there are cores."""
    began_s = time.perf_counter()
    end = first + num_seeds
    pieces = [
        (start, min(SEEDS_AT_A_TIME, end - start)) for start in range(first, end, SEEDS_AT_A_TIME)
    ]
    with ProcessPoolExecutor(num_processes or os.cpu_count()) as pool:
        found = _join(pool.map(_run_piece, pieces))
    seconds = time.perf_counter() - began_s
    return Found(found.num_seeds, found.num_events, seconds, found.endings, found.violations)


def run_seeds(seeds: Iterable[int]) -> Found:
    """Run some in this process."""
    began_s = time.perf_counter()
    logging.disable(logging.CRITICAL)
    try:
        results = [run_plan(draw_plan(seed)) for seed in seeds]
    finally:
        logging.disable(logging.NOTSET)
    endings: Counter[str] = Counter()
    for result in results:
        endings.update(result.endings)
    return Found(
        len(results),
        sum(result.num_events for result in results),
        time.perf_counter() - began_s,
        endings,
        {result.plan.seed: result.violation for result in results if result.violation},
    )


def first_failure(seeds: Iterable[int]) -> str | None:
    """Run them in order; say which is the first to fail, and how."""
    for seed in seeds:
        violation = run_plan(draw_plan(seed)).violation
        if violation is not None:
            return f"seed {seed}: {violation}"
    return None


def shortest_failure(seed: int) -> Plan:
    """The smallest plan that fails as this seed's does."""
    logging.disable(logging.CRITICAL)
    return shrink(draw_plan(seed), lambda plan: run_plan(plan).violation is not None)


def report_hunt(found: Found) -> list[str]:
    """What was found, in lines; for one failure, all that happened."""
    kinds: Counter[str] = Counter()
    for ending, count in found.endings.items():
        kinds[ending.split(",")[0]] += count
    shown = [f"{count} {kind}" for kind, count in kinds.most_common(14)]
    lines = [
        f"{found.num_seeds} seeds, {found.num_events} events in {found.seconds:.1f} s "
        f"({found.num_events / found.seconds:.0f} events/s): {len(found.violations)} violations",
        f"how requests ended: {'; '.join(shown)}",
    ]
    if not found.violations:
        return lines
    for seed, violation in sorted(found.violations.items())[:20]:
        lines.append(f"  seed {seed}: {violation}")
    # The one with the fewest things in its plan is the easiest to understand.
    seed = min(found.violations, key=lambda seed: len(draw_plan(seed).requests))
    lines += ["", f"seed {seed}, without what the failure does not need:", ""]
    return lines + report_run(shortest_failure(seed))


def report_run(plan: Plan) -> list[str]:
    """A plan, everything that happens under it, and what came of it."""
    result = run_plan(plan, with_trace=True)
    end = f"{result.num_events} events; {result.violation or 'everything held'}"
    return [*describe(plan), "", *result.trace, "", end]


def describe(plan: Plan) -> list[str]:
    """A plan in words, without what is as usual."""
    scheduler = plan.config.scheduler
    lines = [
        f"seed {plan.seed}: {plan.num_blocks} blocks of {plan.config.cache.block_size}, "
        f"{scheduler.max_num_seqs} seats, {scheduler.max_num_batched_tokens} tokens a step, "
        f"{scheduler.policy}, context {plan.config.model.max_model_len}",
        f"  a step {plan.step_s} s + {plan.token_s} s a token, loading {plan.load_s} s, "
        f"messages up to {plan.latency_s} s",
        f"  {plan.limits}",
        f"  {plan.restarts}",
    ]
    for request in plan.requests:
        unusual = [
            f"{each.name}={getattr(request, each.name)}"
            for each in fields(request)
            if each.name not in ("number", "prompt")
            and getattr(request, each.name) != getattr(PLAIN, each.name)
        ]
        lines.append(
            f"  request {request.number}: {len(request.prompt)} tokens, {', '.join(unusual)}"
        )
    lines += [f"  {fault}" for fault in plan.faults]
    lines += [f"  {order}" for order in plan.orders]
    return lines


def _run_piece(piece: tuple[int, int]) -> Found:
    first, count = piece
    return run_seeds(range(first, first + count))


def _join(pieces: Iterable[Found]) -> Found:
    num_seeds = num_events = 0
    endings: Counter[str] = Counter()
    violations: dict[int, str] = {}
    for piece in pieces:
        num_seeds += piece.num_seeds
        num_events += piece.num_events
        endings.update(piece.endings)
        violations.update(piece.violations)
    return Found(num_seeds, num_events, 0.0, endings, violations)
