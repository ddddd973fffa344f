"""What each policy promises, in virtual time."""

import random
from itertools import pairwise

import pytest

from tests.scheduling.virtual_server import BASE_S, DECODE_S, VirtualServer, request
from wheelpit.config import SchedulerConfig
from wheelpit.scheduling.deadlines import Deadlines
from wheelpit.scheduling.tenants import TenantShare

SEATS = 16


def config(policy="fcfs", **options) -> SchedulerConfig:
    return SchedulerConfig(max_num_seqs=SEATS, policy=policy, **options)


def poisson(rate_per_s: float, duration_s: float, seed: int = 0):
    """The moments of a random stream of arrivals."""
    draw, now = random.Random(seed), 0.0
    while (now := now + draw.expovariate(rate_per_s)) < duration_s:
        yield now


# --- priority


def served_with_background(ageing_s: float, duration_s: float):
    """Priority 10 keeps every seat busy, and a request of priority 0 comes now and then."""
    server = VirtualServer(config("priority", priority_ageing_s=ageing_s))
    background = [(0.0, request(64, 200, priority=10)) for _ in range(SEATS * 40)]
    urgent = [
        (moment, request(64, 16, request_id=f"urgent-{i}"))
        for i, moment in enumerate(poisson(1.0, duration_s))
    ]
    server.run(background + urgent, until_s=duration_s)
    return server


def test_an_urgent_request_hardly_feels_a_saturated_server():
    idle = VirtualServer(config("priority"))
    idle.run([(0.0, request(64, 16, request_id="alone"))])
    idle_ttft_s = idle.logs["alone"].ttft_s
    server = served_with_background(30.0, duration_s=60.0)
    urgent = [log for name, log in server.logs.items() if "urgent" in name and log.token_s]
    assert len(urgent) > 30
    arrivals = [log.arrival_s for log in urgent]
    for log in urgent:
        if any(0 < abs(log.arrival_s - other) < 0.05 for other in arrivals):
            continue  # they feel each other
        # It cannot come into the step that runs when it arrives.
        in_step_s = next(end_s for end_s in server.step_ends if end_s >= log.arrival_s)
        own_s = log.token_s[0] - in_step_s
        assert own_s <= 2 * idle_ttft_s + BASE_S + DECODE_S * SEATS


def test_who_was_preempted_comes_back_without_stalling_the_others():
    server = VirtualServer(config("priority"))
    background = [(0.0, request(64, 900, priority=10, request_id=f"b{i}")) for i in range(SEATS)]
    server.run([*background, (5.0, request(64, 16, request_id="urgent"))])
    names = [f"b{i}" for i in range(SEATS)]
    victims = [name for name in names if server.logs[name].sequence.num_preemptions]
    assert len(victims) == 1
    assert len([t for t in server.logs[victims[0]].token_s if t < 5.0]) > 300
    for name in set(names) - set(victims):
        moments = [t for t in server.logs[name].token_s if t >= server.logs["urgent"].end_s]
        longest_s = max(later - earlier for earlier, later in pairwise(moments))
        assert longest_s <= 2 * (BASE_S + DECODE_S * SEATS)


def test_an_urgent_request_takes_a_seat_that_comes_back():
    server = VirtualServer(config("priority"))
    background = [(0.0, request(64, 200, priority=10)) for _ in range(SEATS)]
    server.run([*background, (0.5, request(64, 16, request_id="urgent"))])
    assert all(log.is_complete for log in server.logs.values())
    assert server.logs["urgent"].end_s < min(
        log.end_s for name, log in server.logs.items() if name != "urgent"
    )
    assert sum(log.sequence.num_preemptions for log in server.logs.values()) == 1


def test_equal_priorities_never_take_each_others_seats():
    server = VirtualServer(config("priority"))
    server.run([(i * 0.05, request(64, 60, priority=3)) for i in range(SEATS * 3)])
    assert sum(log.sequence.num_preemptions for log in server.logs.values()) == 0


def flood_with_one_of_little_priority(ageing_s: float) -> VirtualServer:
    """More urgent work than fits for 60 s, and one request of priority 10 at the start."""
    server = VirtualServer(config("priority", priority_ageing_s=ageing_s))
    flood = [(moment, request(64, 100)) for moment in poisson(25.0, 60.0)]
    patient = (5.0, request(64, 100, request_id="patient", priority=10))
    server.run([*flood, patient], until_s=60.0)
    return server


def test_ageing_lets_nobody_starve():
    """After 10 levels of 1.5 s it is ahead of whoever comes then, and is served within the queue
    that has built up by then."""
    log = flood_with_one_of_little_priority(1.5).logs["patient"]
    assert log.is_complete
    assert log.token_s[0] > 5.0 + 10 * 1.5


def test_without_ageing_the_levels_are_strict():
    assert not flood_with_one_of_little_priority(0.0).logs["patient"].token_s


# --- deadline


def goodput(policy: str, *, seed: int = 0, load: float = 2.0) -> tuple[float, VirtualServer]:
    """The share of requests that are complete within 2 s, at a multiple of the sustainable load.

    Answers of 16 to 160 tokens: some can be made in time from far back in the queue, some not.
    """
    draw = random.Random(seed)
    server = VirtualServer(config(policy))
    capacity_per_s = SEATS / (88 * (BASE_S + DECODE_S * SEATS) * 1.25)
    arrivals = [
        (moment, request(64, draw.randint(16, 160), deadlines=Deadlines(total_s=moment + 2.0)))
        for moment in poisson(load * capacity_per_s, 60.0, seed)
    ]
    server.run(arrivals)
    logs = server.logs.values()
    assert all(log.is_complete or log.stop_reason == "timeout" for log in logs)
    return sum(log.is_complete for log in logs) / len(logs), server


@pytest.mark.parametrize("seed", range(3))
def test_by_deadline_far_more_requests_are_in_time_than_by_arrival(seed):
    by_arrival, _ = goodput("fcfs", seed=seed)
    by_deadline, _ = goodput("deadline", seed=seed)
    assert by_deadline >= 1.3 * by_arrival


@pytest.mark.parametrize("policy", ["fcfs", "priority", "deadline", "fair"])
def test_no_step_works_on_a_request_whose_deadline_is_over(policy):
    _, server = goodput(policy)
    assert server.num_late_tokens == 0
    longest_step_s = max(server.step_durations)
    for log in server.logs.values():
        assert log.end_s <= log.sequence.deadlines.total_s + longest_step_s + 1e-9


def test_with_load_to_spare_by_deadline_everybody_is_in_time():
    share, _ = goodput("deadline", load=0.5)
    assert share == 1.0


def test_requests_without_a_deadline_go_after_those_with_one():
    server = VirtualServer(config("deadline"))
    free = [(0.0, request(32, 50, request_id=f"free-{i}")) for i in range(SEATS * 2)]
    due = [
        (0.01, request(32, 50, request_id=f"due-{i}", deadlines=Deadlines(total_s=60.0)))
        for i in range(4)
    ]
    server.run(free + due)
    last_due_s = max(server.logs[f"due-{i}"].token_s[0] for i in range(4))
    waited = [log for name, log in server.logs.items() if "free" in name and log.ttft_s > 0.3]
    assert len(waited) == SEATS
    assert all(log.token_s[0] >= last_due_s for log in waited)


def test_a_first_token_deadline_counts_until_the_first_token():
    server = VirtualServer(config("fcfs"))
    hogs = [(0.0, request(32, 400)) for _ in range(SEATS)]
    late = request(32, 10, request_id="late", deadlines=Deadlines(ttft_s=0.5))
    early = request(32, 400, request_id="early", deadlines=Deadlines(ttft_s=0.5))
    server.run([(0.0, early), *hogs, (0.01, late)])
    assert server.logs["early"].is_complete
    assert (server.logs["late"].finish_reason, server.logs["late"].stop_reason) == (
        "abort",
        "ttft_timeout",
    )


def test_a_queue_deadline_counts_until_it_is_scheduled():
    server = VirtualServer(config("fcfs"))
    hogs = [(0.0, request(32, 400)) for _ in range(SEATS - 1)]
    soon = request(32, 400, request_id="soon", deadlines=Deadlines(queue_s=0.1))
    late = request(32, 10, request_id="late", deadlines=Deadlines(queue_s=0.1))
    server.run([(0.0, soon), *hogs, (0.01, late)])
    assert server.logs["soon"].is_complete
    assert server.logs["late"].stop_reason == "queue_timeout"
    assert not server.logs["late"].token_s


# --- fair


def served_tokens(server: VirtualServer, tenant: str, start_s: float, end_s: float) -> int:
    """Output tokens in a window, and the prompts of those who got their first token in it."""
    total = 0
    for log in server.logs.values():
        if log.sequence.tenant == tenant:
            inside = [start_s <= moment < end_s for moment in log.token_s]
            total += sum(inside)
            if inside and inside[0]:
                total += log.sequence.num_prompt_tokens
    return total


def run_two_tenants(weights: dict[str, float]) -> VirtualServer:
    """One sends ten times the requests, each four times as long; both always have work waiting."""
    shares = {name: TenantShare(weight=weight) for name, weight in weights.items()}
    server = VirtualServer(config("fair"), tenants=shares)
    modest = [(moment, request(64, 32, tenant="modest")) for moment in poisson(60.0, 40.0, 1)]
    greedy = [(moment, request(256, 128, tenant="greedy")) for moment in poisson(600.0, 40.0, 2)]
    server.run(modest + greedy, until_s=40.0)
    return server


@pytest.mark.parametrize(("modest", "greedy"), [(1.0, 1.0), (1.0, 3.0), (3.0, 1.0)])
def test_tenants_are_served_by_weight_in_every_window(modest, greedy):
    server = run_two_tenants({"modest": modest, "greedy": greedy})
    for start_s in range(5, 31, 5):
        tokens = {
            name: served_tokens(server, name, start_s, start_s + 10) / weight
            for name, weight in (("modest", modest), ("greedy", greedy))
        }
        assert 0.9 <= tokens["modest"] / tokens["greedy"] <= 1.1, (start_s, tokens)


def test_under_fcfs_the_greedy_tenant_gets_most():
    """Shows that the test above can fail."""
    server = VirtualServer(config("fcfs"))
    modest = [(moment, request(64, 32, tenant="modest")) for moment in poisson(20.0, 30.0, 1)]
    greedy = [(moment, request(256, 128, tenant="greedy")) for moment in poisson(200.0, 30.0, 2)]
    server.run(modest + greedy, until_s=30.0)
    assert served_tokens(server, "greedy", 5, 30) > 10 * served_tokens(server, "modest", 5, 30)


def test_staying_away_saves_up_nothing():
    """A tenant that comes after 20 s gets its share from then on, not those 20 s as well."""
    server = VirtualServer(config("fair"))
    steady = [(moment, request(64, 64, tenant="steady")) for moment in poisson(100.0, 50.0, 1)]
    late = [(20.0 + moment, request(64, 64, tenant="late")) for moment in poisson(100.0, 30.0, 2)]
    server.run(steady + late, until_s=50.0)
    steady_tokens, late_tokens = (
        served_tokens(server, name, 22, 32) for name in ("steady", "late")
    )
    assert 0.9 <= steady_tokens / late_tokens <= 1.1


def test_a_tenant_alone_has_the_whole_machine():
    server = VirtualServer(config("fair"), tenants={"a": TenantShare(weight=0.01)})
    server.run([(0.0, request(32, 50, tenant="a")) for _ in range(SEATS)])
    assert max(log.ttft_s for log in server.logs.values()) < 0.2


@pytest.mark.parametrize("policy", ["fcfs", "priority", "deadline", "fair"])
def test_a_tenant_keeps_to_its_seats_and_stops_nobody_else(policy):
    shares = {"small": TenantShare(max_running=2)}
    server = VirtualServer(config(policy), tenants=shares)
    small = [(0.0, request(32, 40, tenant="small")) for _ in range(10)]
    others = [(0.001, request(32, 40, tenant="other", request_id=f"o{i}")) for i in range(8)]
    most = 0
    inner = server._step

    def step() -> None:
        nonlocal most
        inner()
        most = max(most, server.scheduler._tenants._accounts.get("small", _Nobody).num_running)

    server._step = step
    server.run(small + others)
    assert most == 2
    assert all(log.is_complete for log in server.logs.values())
    assert max(server.logs[f"o{i}"].ttft_s for i in range(8)) < 0.2


class _Nobody:
    num_running = 0


# --- every policy


def itl_with_long_prompt(policy: str, max_decode_slowdown: float) -> tuple[float, float]:
    """The largest gap of 8 streams before, and while, a prompt of the whole context comes in."""
    server = VirtualServer(config(policy, max_decode_slowdown=max_decode_slowdown))
    streams = [(0.0, request(32, 900, request_id=f"s{i}")) for i in range(8)]
    server.run([*streams, (3.0, request(2000, 4, request_id="long"))])
    end_s = server.logs["long"].token_s[0]
    before, during = [], []
    for i in range(8):
        moments = server.logs[f"s{i}"].token_s
        for earlier, later in pairwise(moments):
            if 1.0 < later < 3.0:
                before.append(later - earlier)
            elif 3.0 <= later <= end_s:
                during.append(later - earlier)
    assert len(before) > 100
    assert during
    return max(before), max(during)


@pytest.mark.parametrize("policy", ["fcfs", "priority", "deadline", "fair"])
def test_a_long_prompt_stalls_nobody(policy):
    before, during = itl_with_long_prompt(policy, 1.75)
    assert during <= 2 * before


def test_without_the_bound_a_long_prompt_stalls_everybody():
    """Shows that the test above can fail."""
    before, during = itl_with_long_prompt("fcfs", 0.0)
    assert during > 10 * before
