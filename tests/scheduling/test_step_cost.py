"""A step costs what it schedules, not what waits. Counted in executed lines, not in seconds."""

import sys
from collections.abc import Callable

import pytest

from tests.fakes import FakeRunner
from tests.scheduling.checked_model import make_sequence
from wheelpit.config import CacheConfig, SchedulerConfig, SchedulingPolicy
from wheelpit.scheduling.scheduler import Scheduler


def count_lines(call: Callable[[], object]) -> int:
    """Count the lines of Python that a call executes."""
    num_lines = 0

    def trace(frame, event, argument):
        nonlocal num_lines
        if event == "line":
            num_lines += 1
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(before)
    return num_lines


def make(num_waiting: int, policy: SchedulingPolicy) -> tuple[Scheduler, FakeRunner]:
    """Build a scheduler with 16 running sequences and so many that wait."""
    scheduler = Scheduler(
        SchedulerConfig(max_num_seqs=16, policy=policy),
        CacheConfig(),
        num_blocks=512,
        max_model_len=256,
    )
    runner = FakeRunner(num_blocks=512)
    for number in range(16 + num_waiting):
        scheduler.add(make_sequence(f"r{number}", [number % 7] * 40, max_tokens=5), 0.0)
    do_step(scheduler, runner)
    assert (scheduler.num_running, scheduler.num_waiting) == (16, num_waiting)
    return scheduler, runner


def do_step(scheduler: Scheduler, runner: FakeRunner) -> None:
    batch = scheduler.schedule(0.0)
    scheduler.update(batch, runner.run(batch), 0.0)


@pytest.mark.parametrize("policy", ["fcfs", "priority", "fair"])
def test_a_step_costs_the_same_with_100_and_with_10000_waiting(policy):
    """Over decoding steps, one that ends all 16, and one that starts the next 16."""
    few, many = make(100, policy), make(10_000, policy)
    for _ in range(6):
        # Not exactly equal: the garbage collector's callbacks are lines, too.
        assert count_lines(lambda: do_step(*many)) <= 1.1 * count_lines(lambda: do_step(*few))


def test_aborting_thousands_of_waiting_sequences_costs_the_same_for_each():
    few, _ = make(100, "fcfs")
    many, _ = make(10_000, "fcfs")

    def abort_all(scheduler: Scheduler, count: int) -> int:
        return count_lines(lambda: [scheduler.abort(f"r{16 + i}") for i in range(count)]) // count

    assert abort_all(many, 10_000) <= abort_all(few, 100) + 3
    assert (few.num_waiting, many.num_waiting) == (0, 0)
    few.check()


def test_a_decoding_step_costs_few_lines_for_each_sequence():
    scheduler, runner = make(0, "fcfs")
    batch = scheduler.schedule(0.0)
    sampled = runner.run(batch)
    assert count_lines(lambda: scheduler.schedule(0.0)) < 16 * 20
    assert count_lines(lambda: scheduler.update(batch, sampled, 0.0)) < 16 * 50
