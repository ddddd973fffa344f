"""Are the estimates honest? Seats and queues simulated in virtual time, waits compared."""

from __future__ import annotations

import heapq
import random

import pytest

from wheelpit.engine.turnover import Turnover


class Seats:
    """First come, first served; `seconds()` is how long the next one holds its seat."""

    def __init__(self, num_seats, seconds, *, num_usable=None):
        self.turnover = Turnover(num_seats)
        self.num_usable = num_usable or num_seats
        self.seconds = seconds
        self.now = 0.0
        self.waiting = []  # (arrival, estimate)
        self.running = []  # heap of (end, start)
        self.waits = []  # (estimate, true wait)

    def arrive(self):
        estimate = self.turnover.wait_s(len(self.waiting), self.now)
        self.waiting.append((self.now, estimate))
        self.fill()

    def fill(self):
        num_started = 0
        while self.waiting and len(self.running) < self.num_usable:
            arrival, estimate = self.waiting.pop(0)
            self.waits.append((estimate, self.now - arrival))
            self.turnover.on_start(self.now)
            heapq.heappush(self.running, (self.now + self.seconds(), self.now))
            num_started += 1
        if not self.waiting:
            self.turnover.on_room()
        elif not num_started and self.num_usable < self.turnover._num_seats:
            self.turnover.on_full()

    def advance(self, until):
        while self.running and self.running[0][0] <= until:
            self.now, start = heapq.heappop(self.running)
            self.turnover.on_end(self.now - start, self.now)
            self.fill()
            self.fill()  # the step after that starts nobody
        self.now = until

    def ratios(self, min_wait_s=1.0):
        """Estimate over truth, for waits that were estimated and worth estimating."""
        return [e / wait for e, wait in self.waits if e is not None and wait >= min_wait_s]


def median(values):
    return sorted(values)[len(values) // 2]


def overload(seats, rate, seconds, seed):
    rng = random.Random(seed)
    end = seats.now + seconds
    while seats.now < end:
        seats.advance(seats.now + rng.expovariate(rate))
        if len(seats.waiting) < 60:
            seats.arrive()


@pytest.mark.parametrize("kind", ["exponential", "uniform", "constant"])
def test_in_a_steady_overload_estimates_are_close_to_the_waits(kind):
    rng = random.Random(1)
    seconds = {
        "exponential": lambda: rng.expovariate(1 / 8.0),
        "uniform": lambda: rng.uniform(1.0, 15.0),
        "constant": lambda: 8.0,
    }[kind]
    seats = Seats(16, seconds)
    overload(seats, rate=3.0, seconds=600.0, seed=2)
    ratios = seats.ratios()
    assert len(ratios) > 500
    assert 0.85 < median(ratios) < 1.15
    assert sum(0.5 < ratio < 2.0 for ratio in ratios) > 0.95 * len(ratios)


def test_a_burst_after_light_load_is_estimated_from_its_first_request():
    rng = random.Random(3)
    seats = Seats(16, lambda: rng.uniform(4.0, 12.0))
    for _ in range(40):  # one every ten seconds: hardly ever two at a time
        seats.arrive()
        seats.advance(seats.now + 10.0)
    seats.waits.clear()
    for _ in range(16 + 64):
        seats.arrive()
    seats.advance(seats.now + 1000.0)
    estimated = seats.waits[16:]
    assert all(wait == 0.0 for _, wait in seats.waits[:16])
    assert all(estimate == 0.0 for estimate, _ in seats.waits[:16])
    assert len(estimated) == 64
    # All began at once, so that the first few wait for longer than a seat's mean share.
    late = [estimate / wait for estimate, wait in estimated[16:]]
    assert all(0.6 < ratio < 1.5 for ratio in late)


def test_when_the_cache_is_what_is_full_estimates_are_still_close():
    rng = random.Random(4)
    seats = Seats(64, lambda: rng.uniform(4.0, 12.0), num_usable=6)
    overload(seats, rate=2.0, seconds=900.0, seed=5)
    ratios = seats.ratios()
    assert len(ratios) > 300
    assert 0.8 < median(ratios) < 1.25


def test_nothing_is_known_before_the_first_seat_was_given_up():
    turnover = Turnover(2)
    assert turnover.rate(5.0) is None
    assert turnover.wait_s(0, 5.0) == 0.0
    turnover.on_start(5.0)
    turnover.on_start(5.0)
    assert turnover.wait_s(0, 100.0) is None
    turnover.on_end(95.0, 100.0)
    assert turnover.rate(100.0) == pytest.approx(2 / 95.0)


def test_the_rate_falls_by_itself_while_nothing_moves():
    turnover = Turnover(2)
    for _ in range(10):
        turnover.on_start(0.0)
        turnover.on_end(1.0, 1.0)
    turnover.on_start(1.0)
    turnover.on_start(1.0)
    rates = [turnover.rate(1.0 + seconds) for seconds in (0.5, 1.0, 10.0, 100.0)]
    assert rates == pytest.approx([2.0, 2.0, 0.2, 0.02])
    turnover.on_end(100.0, 101.0)
    assert turnover.rate(101.0) == pytest.approx(2 / (1.0 + 99.0 / 11))


def test_one_long_request_alone_is_no_sign_of_a_standstill():
    turnover = Turnover(100)
    turnover.on_start(0.0)
    turnover.on_end(1.0, 1.0)
    turnover.on_start(1.0)
    assert turnover.rate(51.0) == pytest.approx(100.0)


def test_an_idle_hour_changes_nothing():
    turnover = Turnover(4)
    turnover.on_start(0.0)
    turnover.on_end(2.0, 2.0)
    assert turnover.rate(3600.0) == pytest.approx(2.0)
