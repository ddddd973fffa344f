"""Admission in virtual time: exact counts, bounds that hold, refusals that leave no trace."""

from __future__ import annotations

import pickle
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from wheelpit.config import SchedulerConfig
from wheelpit.engine.admission import Admission, Limits, TenantLimits, estimate_tokens
from wheelpit.errors import ConfigError, OverloadedError
from wheelpit.scheduling.deadlines import Deadlines


def make(num_seats=2, *, policy="fcfs", ageing_s=30.0, **limits):
    scheduler = SchedulerConfig(max_num_seqs=num_seats, policy=policy, priority_ageing_s=ageing_s)
    return Admission(Limits(**limits), scheduler)


def enter(admission, now=0.0, num_tokens=10, **given):
    return admission.reserve("r", now, num_tokens=num_tokens, **given)


def refusal(admission, now=0.0, num_tokens=10, **given):
    before = counts(admission)
    with pytest.raises(OverloadedError) as caught:
        enter(admission, now, num_tokens, **given)
    assert counts(admission) == before
    return caught.value


def counts(admission):
    return (admission.num_queued, admission.num_queued_tokens, admission.num_running)


def fill(admission, number, now=0.0, **given):
    """Let so many in and start them."""
    entered = [enter(admission, now, **given) for _ in range(number)]
    for reservation in entered:
        reservation.start(0, now)
    return entered


# --- counting


def test_a_reservation_moves_from_queued_to_running_to_nothing():
    admission = make()
    reservation = enter(admission, num_tokens=10, num_sequences=3)
    assert counts(admission) == (3, 30, 0)
    reservation.start(1, 1.0)
    assert counts(admission) == (2, 20, 1)
    reservation.end(1, 2.0)
    reservation.end(0, 2.0)
    assert counts(admission) == (1, 10, 0)
    reservation.release(3.0)
    assert counts(admission) == (0, 0, 0)
    assert admission.num_accounts == 0
    assert reservation.is_released


def test_whatever_comes_after_the_end_changes_nothing():
    admission = make()
    reservation, other = enter(admission), enter(admission)
    reservation.release(1.0)
    for _ in range(2):
        reservation.release(1.0)
        reservation.start(0, 1.0)
        reservation.end(0, 1.0)
        reservation.resize(1000, 1.0)
        reservation.charge(5, 1.0)
    assert counts(admission) == (1, 10, 0)
    other.start(0, 1.0)
    other.start(0, 1.0)
    assert counts(admission) == (0, 0, 1)
    other.end(0, 2.0)
    other.end(0, 2.0)
    other.start(0, 2.0)
    assert counts(admission) == (0, 0, 0)


def test_tokenizing_replaces_the_estimate_and_refuses_nobody():
    admission = make(max_num_queued_tokens=100)
    reservation = enter(admission, num_tokens=estimate_tokens(41))
    assert admission.num_queued_tokens == 11
    reservation.resize(5000, 0.0)
    assert admission.num_queued_tokens == 5000
    reservation.start(0, 0.0)
    reservation.resize(7000, 0.0)
    assert admission.num_queued_tokens == 0


# --- the bounds


def test_the_queue_bound_is_beyond_the_free_seats():
    admission = make(num_seats=2, max_num_queued_reqs=3)
    entered = [enter(admission) for _ in range(5)]
    error = refusal(admission)
    assert error.reason == "queue_full"
    assert "5 are queued with 2 seats free, limit is 3 (max_num_queued_reqs)" in str(error)
    entered[0].start(0, 0.0)
    refusal(admission)
    entered[0].end(0, 1.0)
    enter(admission, 1.0)
    refusal(admission, 1.0)


def test_a_bound_of_zero_lets_in_what_finds_a_seat():
    admission = make(num_seats=2, max_num_queued_reqs=0)
    first, _ = enter(admission), enter(admission)
    assert refusal(admission).reason == "queue_full"
    first.release(0.0)
    enter(admission)


def test_a_request_for_many_counts_as_many():
    admission = make(num_seats=2, max_num_queued_reqs=3)
    enter(admission, num_sequences=3)
    enter(admission, num_sequences=2)
    assert refusal(admission).reason == "queue_full"


@pytest.mark.parametrize("bound", [0, 3])
def test_one_that_is_larger_than_the_queue_comes_in_when_nobody_waits(bound):
    admission = make(num_seats=2, max_num_queued_reqs=bound)
    large = enter(admission, num_sequences=50)
    refusal(admission)
    large.release(0.0)
    assert counts(admission) == (0, 0, 0)


def test_the_token_bound_counts_what_has_not_started():
    admission = make(num_seats=8, max_num_queued_tokens=100)
    first = enter(admission, num_tokens=60)
    enter(admission, num_tokens=40)
    error = refusal(admission, num_tokens=1)
    assert error.reason == "queue_tokens"
    assert "100 prompt tokens are queued, limit is 100 (max_num_queued_tokens)" in str(error)
    first.start(0, 0.0)
    enter(admission, num_tokens=60)


def test_a_prompt_larger_than_the_token_bound_comes_in_when_the_queue_is_empty():
    admission = make(num_seats=8, max_num_queued_tokens=100)
    large = enter(admission, num_tokens=5000)
    assert refusal(admission, num_tokens=1).reason == "queue_tokens"
    large.start(0, 0.0)
    enter(admission, num_tokens=5000)


def test_without_limits_nobody_is_refused():
    admission = make(num_seats=1)
    entered = [enter(admission, num_tokens=10**6, tenant=str(i)) for i in range(2000)]
    assert admission.num_queued == 2000
    for reservation in entered:
        reservation.release(0.0)
    assert admission.num_accounts == 0


def test_a_list_of_prompts_comes_in_as_a_whole_or_not_at_all():
    admission = make(num_seats=2, max_num_queued_reqs=5, max_num_queued_tokens=120)
    for _ in range(3):
        enter(admission, num_tokens=5)
    for places in ([("a", 1)] * 5, [("a", 6), ("b", 100)]):
        before = counts(admission)
        with pytest.raises(OverloadedError):
            admission.reserve_all(places, 0.0)
        assert counts(admission) == before
    first, second = admission.reserve_all([("a", 30), ("b", 20)], 0.0, num_sequences=2)
    assert counts(admission) == (7, 3 * 5 + 2 * 30 + 2 * 20, 0)
    assert admission.num_ahead(second) - admission.num_ahead(first) == 2
    first.release(0.0)
    assert counts(admission) == (5, 55, 0)


def test_limits_can_change_while_requests_wait():
    admission = make(num_seats=1, max_num_queued_reqs=1)
    entered = [enter(admission), enter(admission)]
    refusal(admission)
    admission.set_limits(replace(admission.limits, max_num_queued_reqs=2), 0.0)
    entered.append(enter(admission))
    admission.set_limits(replace(admission.limits, max_num_queued_reqs=0), 0.0)
    assert admission.num_queued == 3
    refusal(admission)


def test_an_overloaded_error_survives_pickling():
    error = OverloadedError("busy", retry_after_s=2.5, reason="tenant_rate", estimate_s=4.0)
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), copy.retry_after_s, copy.reason, copy.estimate_s) == (
        "busy",
        2.5,
        "tenant_rate",
        4.0,
    )


# --- tenants


def test_a_tenant_has_a_queue_of_its_own():
    admission = make(num_seats=1, tenants={"a": TenantLimits(max_queued=1)})
    fill(admission, 1)
    enter(admission, tenant="a")
    error = refusal(admission, tenant="a")
    assert error.reason == "tenant_queue"
    assert "tenant 'a' has 1 queued, limit is 1 (max_queued)" in str(error)
    for _ in range(5):
        enter(admission, tenant="b")


def test_the_default_limits_hold_for_each_tenant_by_itself():
    admission = make(num_seats=1, default_tenant=TenantLimits(max_queued=1))
    fill(admission, 1, tenant="z")
    for tenant in "abc":
        enter(admission, tenant=tenant)
        assert refusal(admission, tenant=tenant).reason == "tenant_queue"


def test_seats_that_a_tenant_may_not_have_are_not_free_for_it():
    admission = make(num_seats=8, tenants={"a": TenantLimits(max_running=2, max_queued=1)})
    fill(admission, 2, tenant="a")
    enter(admission, tenant="a")
    assert refusal(admission, tenant="a").reason == "tenant_queue"


def test_a_tenant_that_has_used_its_minute_waits_until_there_is_some_left():
    admission = make(num_seats=8, tenants={"a": TenantLimits(tokens_per_minute=600)})
    first = enter(admission, 0.0, num_tokens=400, tenant="a")
    first.start(0, 0.0)
    first.charge(300, 0.0)
    error = refusal(admission, 0.0, tenant="a")
    assert error.reason == "tenant_rate"
    assert error.retry_after_s == pytest.approx(10.0)  # 100 too many, at 10 a second
    assert error.estimate_s is None
    first.release(1.0)
    refusal(admission, 9.9, tenant="a")
    enter(admission, 10.1, tenant="a")
    enter(admission, 0.0, tenant="b")


def test_a_request_that_never_ran_gets_its_tokens_back():
    admission = make(tenants={"a": TenantLimits(tokens_per_minute=100)})
    for _ in range(3):
        waiting = enter(admission, num_tokens=100, tenant="a")
        assert refusal(admission, tenant="a").reason == "tenant_rate"
        waiting.end(0, 0.0)
        waiting.release(0.0)
    ran = enter(admission, num_tokens=100, tenant="a")
    ran.start(0, 0.0)
    ran.release(0.0)
    assert refusal(admission, tenant="a").reason == "tenant_rate"


def test_a_tenant_pays_for_the_prompt_as_tokenized():
    admission = make(num_seats=8, tenants={"a": TenantLimits(tokens_per_minute=100)})
    enter(admission, num_tokens=10, tenant="a").resize(99, 0.0)
    enter(admission, num_tokens=200, tenant="a").resize(1, 0.0)
    assert refusal(admission, tenant="a").reason == "tenant_rate"
    enter(admission, 1.0, num_tokens=1, tenant="a")


def test_used_tokens_outlive_the_requests_but_not_the_minute():
    admission = make(default_tenant=TenantLimits(tokens_per_minute=600))
    for number in range(50):
        reservation = enter(admission, tenant=str(number), num_tokens=600)
        reservation.start(0, 0.0)
        reservation.release(0.0)
    assert admission.num_accounts == 50
    assert refusal(admission, 0.0, tenant="7").reason == "tenant_rate"
    for _ in range(25):  # two a time are looked at
        enter(admission, 60.0).release(60.0)
    assert admission.num_accounts == 0


def test_a_rate_that_is_lifted_forgets_what_was_used():
    admission = make(default_tenant=TenantLimits(tokens_per_minute=100))
    enter(admission, num_tokens=1000).start(0, 0.0)
    refusal(admission)
    admission.set_limits(Limits(), 0.0)
    enter(admission)


@pytest.mark.parametrize(
    "given",
    [
        {"weight": 0.0},
        {"weight": float("inf")},
        {"max_running": 0},
        {"max_queued": -1},
        {"tokens_per_minute": 0},
    ],
)
def test_limits_of_a_tenant_are_checked(given):
    with pytest.raises(ConfigError, match=next(iter(given))):
        TenantLimits(**given)


@pytest.mark.parametrize(
    "given",
    [
        {"max_num_queued_reqs": -1},
        {"max_num_queued_tokens": 0},
        {"default_timeout_s": 0.0},
        {"default_queue_timeout_s": float("nan")},
        {"default_ttft_timeout_s": float("inf")},
    ],
)
def test_limits_are_checked(given):
    with pytest.raises(ConfigError, match=next(iter(given))):
        Limits(**given)


def test_changes_are_named_one_by_one():
    old = Limits(max_num_queued_reqs=5, tenants={"a": TenantLimits(), "b": TenantLimits()})
    new = replace(
        old,
        max_num_queued_reqs=None,
        refuse_late=True,
        tenants={"b": TenantLimits(weight=2.0), "c": TenantLimits()},
    )
    assert old.changes_to(old) == []
    assert old.changes_to(new) == [
        ("max_num_queued_reqs", 5, None),
        ("refuse_late", False, True),
        ("tenants.a", TenantLimits(), None),
        ("tenants.b", TenantLimits(), TenantLimits(weight=2.0)),
        ("tenants.c", None, TenantLimits()),
    ]


# --- deadlines and estimates


def serve(admission, number, held_s):
    """Let so many run, one after another, each for so long. Returns when the last one ends."""
    now = 0.0
    for _ in range(number):
        reservation = enter(admission, now)
        reservation.start(0, now)
        now += held_s
        reservation.release(now)
    return now


def test_retry_after_is_the_wait_at_the_end_of_the_queue():
    admission = make(num_seats=4, max_num_queued_reqs=6)
    now = serve(admission, 3, 8.0)
    fill(admission, 4, now)
    for _ in range(6):
        enter(admission, now)
    error = refusal(admission, now)
    assert error.retry_after_s == error.estimate_s == pytest.approx(7 * 8.0 / 4)
    assert "try again in 14 s" in str(error)


def test_retry_after_has_a_floor_and_a_ceiling():
    admission = make(num_seats=1, max_num_queued_reqs=0)
    (first,) = fill(admission, 1)
    error = refusal(admission)
    assert (error.retry_after_s, error.estimate_s) == (1.0, None)
    first.release(0.001)
    fill(admission, 1, 0.001)
    error = refusal(admission, 0.001)
    assert (error.retry_after_s, error.estimate_s) == (1.0, pytest.approx(0.001))
    error = refusal(admission, 4000.0)
    assert error.retry_after_s == 600.0
    assert error.estimate_s == pytest.approx(4000.0, rel=0.01)


def test_who_cannot_start_in_time_is_refused_if_told_to():
    admission = make(num_seats=1, refuse_late=True)
    now = serve(admission, 2, 10.0)
    fill(admission, 1, now)
    enter(admission, now)
    for deadlines in (
        Deadlines(total_s=now + 19.0),
        Deadlines(queue_s=now + 19.0),
        Deadlines(ttft_s=now + 19.0),
        Deadlines(total_s=now + 100.0, queue_s=now + 50.0, ttft_s=now + 19.0),
    ):
        error = refusal(admission, now, deadlines=deadlines)
        assert (error.reason, error.estimate_s) == ("deadline", pytest.approx(20.0))
        assert error.retry_after_s == pytest.approx(20.0)
    enter(admission, now)
    enter(admission, now, deadlines=Deadlines(total_s=now + 31.0))
    admission.set_limits(Limits(), now)
    enter(admission, now, deadlines=Deadlines(total_s=now + 1.0))


def test_nobody_is_refused_for_a_wait_that_nobody_knows():
    admission = make(num_seats=1, refuse_late=True)
    fill(admission, 1)
    for _ in range(100):
        enter(admission, deadlines=Deadlines(total_s=0.001))


def test_a_full_cache_is_what_seats_are_until_nobody_waits_for_it():
    admission = make(num_seats=10)
    now = serve(admission, 3, 6.0)
    fill(admission, 2, now)
    waiting = enter(admission, now)
    assert admission.wait_s(waiting, 0, now) == 0.0
    admission.on_step(num_waiting=1, num_started=0, kv_cache_usage=0.4)  # a budget, not the cache
    assert admission.wait_s(waiting, 0, now) == 0.0
    admission.on_step(num_waiting=1, num_started=0, kv_cache_usage=0.9)
    assert admission.wait_s(waiting, 0, now) == pytest.approx(6.0 / 2)
    admission.on_step(num_waiting=0, num_started=1, kv_cache_usage=0.9)
    assert admission.wait_s(waiting, 0, now) == 0.0


def test_who_waits_for_a_seat_of_its_tenant_is_no_sign_of_a_full_cache():
    admission = make(num_seats=10, tenants={"a": TenantLimits(max_running=1)})
    now = serve(admission, 3, 6.0)
    fill(admission, 1, now, tenant="a")
    enter(admission, now, tenant="a")
    admission.on_step(num_waiting=1, num_started=0, kv_cache_usage=0.9)
    other = enter(admission, now, tenant="b")
    assert admission.wait_s(other, 1, now) == 0.0


@pytest.mark.parametrize(
    ("policy", "ageing_s", "given", "num_ahead"),
    [
        ("fcfs", 30.0, {"priority": -5}, 4),
        ("priority", 30.0, {"priority": 0}, 3),
        ("priority", 30.0, {"priority": -1}, 0),
        ("priority", 30.0, {"priority": 5}, 4),
        ("priority", 0.0, {"priority": 1}, 3),
        ("priority", 5.0, {"priority": 1}, 4),  # the fourth has waited for more than a level
        ("deadline", 30.0, {"deadlines": Deadlines(total_s=45.0)}, 1),
        ("deadline", 30.0, {}, 4),
        ("fair", 30.0, {"tenant": "new"}, 2),  # one of each of the others
        ("fair", 30.0, {"tenant": "b"}, 3),  # its own, and two of the other's
    ],
)
def test_who_is_ahead_is_the_policys_business(policy, ageing_s, given, num_ahead):
    admission = make(num_seats=1, policy=policy, ageing_s=ageing_s)
    enter(admission, 0.0, tenant="a", deadlines=Deadlines(total_s=40.0))
    enter(admission, 1.0, tenant="a", deadlines=Deadlines(total_s=50.0))
    enter(admission, 2.0, tenant="b", deadlines=Deadlines(queue_s=60.0))
    enter(admission, 3.0, tenant="a", priority=2)
    new = enter(admission, 10.0, **given)
    assert admission.num_ahead(new) == num_ahead


def test_weights_decide_how_many_go_first():
    tenants = {"heavy": TenantLimits(weight=3.0)}
    admission = make(num_seats=1, policy="fair", tenants=tenants)
    for _ in range(10):
        enter(admission, tenant="heavy")
    light = enter(admission, tenant="light")
    assert admission.num_ahead(light) == 3
    late = enter(admission, tenant="heavy")
    assert admission.num_ahead(late) == 10 + 1


def test_a_tenants_seats_make_its_own_wait_longer():
    admission = make(num_seats=10, tenants={"a": TenantLimits(max_running=1)})
    now = serve(admission, 5, 6.0)
    fill(admission, 1, now, tenant="a")
    mine = [enter(admission, now, tenant="a") for _ in range(2)]
    other = enter(admission, now, tenant="b")
    assert [admission.wait_s(one, admission.num_ahead(one), now) for one in mine] == [6.0, 12.0]
    assert admission.wait_s(other, admission.num_ahead(other), now) == 0.0


# --- a machine that does anything in any order


class AdmissionMachine(RuleBasedStateMachine):
    """Against a model that counts from scratch each time."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.model: dict = {}

    @initialize(
        num_seats=st.integers(1, 4),
        bound=st.none() | st.integers(0, 5),
        token_bound=st.none() | st.integers(1, 60),
        max_queued=st.none() | st.integers(0, 3),
        rate=st.none() | st.integers(1, 200),
        policy=st.sampled_from(["fcfs", "priority", "deadline", "fair"]),
        refuse_late=st.booleans(),
    )
    def begin(self, num_seats, bound, token_bound, max_queued, rate, policy, refuse_late):
        self.num_seats = num_seats
        limited = TenantLimits(max_queued=max_queued, tokens_per_minute=rate, max_running=2)
        self.admission = make(
            num_seats,
            policy=policy,
            max_num_queued_reqs=bound,
            max_num_queued_tokens=token_bound,
            refuse_late=refuse_late,
            tenants={"a": limited},
        )

    @rule(
        tenant=st.sampled_from("abc"),
        num_tokens=st.integers(1, 40),
        n=st.integers(1, 3),
        priority=st.integers(-1, 1),
        left_s=st.none() | st.floats(0.1, 5.0),
    )
    def reserve(self, tenant, num_tokens, n, priority, left_s):
        before = counts(self.admission)
        limits = self.admission.limits
        num_free = max(0, self.num_seats - before[2])
        given = {
            "tenant": tenant,
            "num_sequences": n,
            "priority": priority,
            "deadlines": Deadlines(left_s if left_s is None else self.now + left_s),
        }
        try:
            reservation = enter(self.admission, self.now, num_tokens, **given)
        except OverloadedError:
            # Once more, to look at it.
            error = refusal(self.admission, self.now, num_tokens, **given)
            assert 1.0 <= error.retry_after_s <= 600.0
            if error.reason == "queue_full":
                assert before[0] + n - num_free > limits.max_num_queued_reqs
            elif error.reason == "queue_tokens":
                assert before[1] + n * num_tokens > limits.max_num_queued_tokens
            elif error.reason == "deadline":
                assert limits.refuse_late
                assert error.estimate_s > left_s
            else:
                assert tenant == "a"
            return
        self.model[reservation] = ({*range(n)}, set())
        bound = limits.max_num_queued_reqs
        if bound is not None and before[0] > num_free:
            assert self.admission.num_queued - num_free <= bound
        if limits.max_num_queued_tokens is not None and before[0]:
            assert self.admission.num_queued_tokens <= limits.max_num_queued_tokens

    def pick(self, data):
        return data.draw(st.sampled_from(sorted(self.model, key=lambda r: r.number)))

    @precondition(lambda self: self.model)
    @rule(data=st.data(), num_tokens=st.integers(1, 40))
    def resize(self, data, num_tokens):
        self.pick(data).resize(num_tokens, self.now)

    @precondition(lambda self: self.model)
    @rule(data=st.data(), index=st.integers(0, 2))
    def start(self, data, index):
        reservation = self.pick(data)
        queued, running = self.model[reservation]
        reservation.start(index, self.now)
        if index in queued:
            queued.remove(index)
            running.add(index)

    @precondition(lambda self: self.model)
    @rule(data=st.data(), index=st.integers(0, 2))
    def end(self, data, index):
        reservation = self.pick(data)
        reservation.end(index, self.now)
        for indices in self.model[reservation]:
            indices.discard(index)

    @precondition(lambda self: self.model)
    @rule(data=st.data(), num_tokens=st.integers(1, 30))
    def charge(self, data, num_tokens):
        self.pick(data).charge(num_tokens, self.now)

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def release(self, data):
        reservation = self.pick(data)
        reservation.release(self.now)
        del self.model[reservation]

    @rule(seconds=st.floats(0.0, 90.0))
    def advance(self, seconds):
        self.now += seconds

    @rule(num_waiting=st.integers(0, 3), num_started=st.integers(0, 1), usage=st.floats(0.0, 1.0))
    def step(self, num_waiting, num_started, usage):
        self.admission.on_step(num_waiting, num_started, usage)

    @rule(bound=st.none() | st.integers(0, 5), rate=st.none() | st.integers(1, 200))
    def change_limits(self, bound, rate):
        tenants = {"a": TenantLimits(tokens_per_minute=rate)}
        limits = replace(self.admission.limits, max_num_queued_reqs=bound, tenants=tenants)
        self.admission.set_limits(limits, self.now)

    @invariant()
    def counts_are_exact(self):
        queued = sum(len(indices) for indices, _ in self.model.values())
        tokens = sum(len(indices) * r.num_tokens for r, (indices, _) in self.model.items())
        running = sum(len(indices) for _, indices in self.model.values())
        assert counts(self.admission) == (queued, tokens, running)
        rate = self.admission.drain_rate(self.now)
        assert rate is None or rate > 0.0

    @invariant()
    def waits_are_sane(self):
        for reservation in self.model:
            num_ahead = self.admission.num_ahead(reservation)
            assert 0 <= num_ahead <= self.admission.num_queued
            wait_s = self.admission.wait_s(reservation, num_ahead, self.now)
            assert wait_s is None or wait_s >= 0.0

    def teardown(self):
        for reservation in list(self.model):
            reservation.release(self.now)
        assert counts(self.admission) == (0, 0, 0)
        self.now += 10_000_000.0
        for _ in range(3):
            enter(self.admission, self.now).release(self.now)
        assert self.admission.num_accounts == 0


TestAdmissionMachine = AdmissionMachine.TestCase
TestAdmissionMachine.settings = settings(
    max_examples=150,
    stateful_step_count=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
