"""Every way in which a request can end, in virtual time, against the real core."""

from __future__ import annotations

import random
from collections import Counter
from types import SimpleNamespace

import pytest

from tests.engine.virtual_engine import VirtualEngine
from wheelpit.engine.limits import Limits, TenantLimits
from wheelpit.engine.messages import Abort, AddRequest, StepOutput, TokenOutput
from wheelpit.engine.request_book import OVERDUE_S
from wheelpit.errors import EngineDeadError, EngineGenerateError, OverloadedError
from wheelpit.request import RequestProgress


def ending(state):
    """(reason, stop reason, number of tokens) of a request's last output; it must be the last."""
    output = state.take()
    assert output.finished
    assert state.take() is None
    (completion,) = output.outputs
    return completion.finish_reason, completion.stop_reason, len(completion.token_ids)


def record_of(engine):
    (record,) = engine.watcher.finished
    return record


# --- abort, in every state


def queued(engine):
    """Waits for a seat."""
    for _ in range(2):
        engine.submit()
    return engine.submit()


def in_prefill(engine):
    """Has half of its prompt computed."""
    state = engine.submit([5] * 100)
    engine.step()
    return state


def decoding(engine):
    """Has three tokens."""
    state = engine.submit()
    engine.step(3)
    return state


def preempted(engine):
    """Had to give its blocks to an older one, and waits again."""
    engine.submit([5] * 100)
    state = engine.submit([5] * 100)
    while not engine.core.stats().num_preemptions:
        engine.step()
    assert engine.core.stats().num_waiting == 1
    return state


def held(engine):
    """Came while the engine was paused."""
    engine.book.hold()
    return engine.submit()


STATES = {
    queued: {},
    in_prefill: {},
    decoding: {},
    preempted: {"num_blocks": 16},
    held: {},
}


@pytest.mark.parametrize("bring_about", STATES, ids=lambda f: f.__name__)
def test_abort_frees_everything_before_the_next_step(bring_about):
    engine = VirtualEngine(**STATES[bring_about])
    state = bring_about(engine)
    others = [other for other in engine.book.requests if other is not state]
    (completion,) = state.completions
    num_tokens = len(completion.token_ids)
    in_core = engine.core.stats()

    engine.book.abort(state)
    engine.book.abort(state)
    assert ending(state) == ("abort", None, num_tokens)
    after = engine.core.stats()
    assert after.num_running + after.num_waiting == len(others)
    if bring_about is not held:
        assert in_core.num_running + in_core.num_waiting == len(others) + 1
    num_runs = len(engine.runner.runs)
    engine.step(2)
    assert completion.sequence_id not in [name for name, _ in engine.runner.runs[num_runs:]]
    for other in others:
        engine.book.abort(other)
    engine.assert_idle()
    assert Counter(r.finish_reason for r in engine.watcher.finished) == {"abort": 1 + len(others)}


def test_abort_in_the_step_that_ends_it_loses_to_the_step():
    engine = VirtualEngine()
    state = engine.submit(max_tokens=2)
    engine.step(2)
    engine.book.abort(state)
    assert ending(state) == ("length", None, 2)
    engine.assert_idle()
    assert record_of(engine).finish_reason == "length"


def test_abort_before_the_step_that_ends_it_wins():
    engine = VirtualEngine()
    state = engine.submit(max_tokens=2)
    engine.step()
    engine.book.abort(state)
    engine.step()
    assert ending(state) == ("abort", None, 1)
    engine.assert_idle()


def test_what_the_engine_says_of_an_aborted_request_is_dropped():
    """The abort and a step's tokens cross on the socket."""
    engine = VirtualEngine()
    state = engine.submit()
    engine.step()
    late = engine.core.step()
    engine.book.abort(state)
    engine.book.on_step(late)
    assert ending(state) == ("abort", None, 1)
    engine.assert_idle()
    assert engine.book.stats().num_generation_tokens == 1


def test_an_aborted_sequence_frees_a_seat_for_the_next_step():
    engine = VirtualEngine()
    first, _, third = (engine.submit() for _ in range(3))
    engine.step(2)
    assert not third.completions[0].token_ids
    engine.book.abort(first)
    engine.step()
    assert len(third.completions[0].token_ids) == 1


def test_aborting_one_completion_id_ends_the_whole_request():
    engine = VirtualEngine()
    state = engine.submit(n=3)
    engine.step()
    engine.book.abort_sequence(state.completions[1].sequence_id)
    engine.book.abort_sequence("unknown")
    output = state.take()
    assert output.finished
    assert [completion.finish_reason for completion in output.outputs] == ["abort"] * 3
    engine.assert_idle()


def test_a_request_that_was_aborted_on_its_way_in_never_reaches_the_engine():
    engine = VirtualEngine()
    admission = engine.admission
    reserve = admission.reserve

    def reserve_and_abort(*args, **given):
        reservation = reserve(*args, **given)
        reservation.is_aborted = True
        return reservation

    admission.reserve = reserve_and_abort
    state = engine.submit()
    assert ending(state) == ("abort", None, 0)
    assert engine.sent == []
    engine.assert_idle()


# --- other ends


def test_a_dead_engine_ends_every_request_with_an_exception_of_its_own():
    engine = VirtualEngine()
    running, waiting = engine.submit(timeout=50.0), engine.submit(n=3)
    engine.step()
    engine.book.hold()
    kept = engine.submit(timeout=50.0)
    engine.book.fail_all(EngineDeadError)
    errors = []
    for state in (running, waiting, kept):
        with pytest.raises(EngineDeadError) as caught:
            state.take()
        errors.append(caught.value)
    assert len(set(map(id, errors))) == 3
    assert [record.finish_reason for record in engine.watcher.finished] == ["error"] * 3
    stats = engine.book.stats()
    assert (stats.num_requests, stats.num_queued, stats.num_queued_tokens) == (0, 0, 0)
    assert (stats.engine.num_running, stats.engine.num_waiting) == (0, 0)
    assert stats.engine.kv_cache_usage == 0.0
    assert len(engine.timers) == 0


def test_a_closed_loops_requests_are_dropped_without_waking_anybody():
    engine = VirtualEngine()
    state = engine.submit(timeout=50.0)
    engine.step()
    engine.timers.cancel(0)  # the loop's own doing
    engine.book.discard(engine.book.requests)
    engine.assert_idle()
    assert record_of(engine).finish_reason == "abort"
    assert not state._news.is_set() or state.take() is not None


def test_a_message_that_cannot_be_encoded_ends_its_request_only():
    engine = VirtualEngine()
    good = engine.submit(max_tokens=2)
    bad = engine.submit(extra_args={"callback": print})
    with pytest.raises(EngineGenerateError, match="TypeError"):
        bad.take()
    engine.run()
    assert ending(good)[0] == "length"
    engine.assert_idle()
    assert [record.finish_reason for record in engine.watcher.finished] == ["error", "length"]


@pytest.mark.parametrize("end", ["abort", "timeout"])
def test_a_detokenizer_that_fails_at_the_end_still_gives_back_the_place(end):
    engine = VirtualEngine()
    state = engine.submit(timeout=1.5)
    engine.step()

    def raises(*args, **given):
        raise ValueError("odd bytes")

    state.completions[0]._output_text = SimpleNamespace(append=raises)
    if end == "abort":
        engine.book.abort(state)
    else:
        engine.timers.advance(1.0)
    with pytest.raises(EngineGenerateError, match="odd bytes"):
        state.take()
    engine.run()
    engine.assert_idle()
    assert record_of(engine).finish_reason == "error"


@pytest.mark.parametrize("name", ["on_step", "on_request_finished"])
def test_a_watcher_that_raises_is_dropped_and_requests_go_on(name):
    engine = VirtualEngine()
    calls = []

    def raises(record):
        calls.append(record)
        raise RuntimeError("a dashboard is down")

    silent = {"on_step": lambda record: None, "on_request_finished": lambda record: None}
    engine.book.watchers.add(SimpleNamespace(**{**silent, name: raises}))
    states = [engine.submit(max_tokens=3) for _ in range(2)]
    engine.run()
    assert [ending(state)[0] for state in states] == ["length"] * 2
    assert len(calls) == 1
    assert len(engine.watcher.finished) == 2
    engine.assert_idle()


# --- deadlines


def test_a_missed_timeout_keeps_the_tokens_so_far():
    engine = VirtualEngine(step_s=0.1)
    state = engine.submit(timeout=0.35)
    engine.run()
    assert ending(state) == ("abort", "timeout", 4)
    engine.assert_idle()
    record = record_of(engine)
    assert (record.finish_reason, record.stop_reason) == ("abort", "timeout")
    assert record.num_generation_tokens == 4
    assert engine.core.stats().num_timeouts == 1


def test_a_missed_queue_timeout_ends_what_waits():
    engine = VirtualEngine()
    running = [engine.submit(queue_timeout=2.5) for _ in range(2)]
    waiting = engine.submit(queue_timeout=2.5)
    engine.step(4)
    assert ending(waiting) == ("abort", "queue_timeout", 0)
    assert all(len(state.completions[0].token_ids) == 4 for state in running)
    assert record_of(engine).stop_reason == "queue_timeout"


def test_a_missed_ttft_timeout_ends_what_has_no_token_yet():
    engine = VirtualEngine()
    quick = engine.submit([5] * 3, ttft_timeout=2.5)
    slow = engine.submit([5] * 200, ttft_timeout=2.5)
    engine.step(4)
    assert ending(slow) == ("abort", "ttft_timeout", 0)
    assert len(quick.completions[0].token_ids) >= 2
    assert record_of(engine).stop_reason == "ttft_timeout"


def test_the_front_end_does_not_wait_for_a_step_that_hangs():
    engine = VirtualEngine()
    state = engine.submit(timeout=3.5)
    engine.step(3)
    # The engine is in a step that never ends: only the timers go on.
    engine.timers.advance(0.5)
    assert state.take().finished is False
    engine.timers.advance(OVERDUE_S)
    assert ending(state) == ("abort", "timeout", 3)
    assert engine.sent[-1] == Abort([state.completions[0].sequence_id])
    engine.assert_idle()
    assert record_of(engine).e2e_s == pytest.approx(3.5 + OVERDUE_S)


def test_the_engine_ends_what_is_over_before_the_front_end_does():
    engine = VirtualEngine(step_s=0.1)
    state = engine.submit(timeout=1.01)
    engine.run()
    assert ending(state)[:2] == ("abort", "timeout")
    assert not any(isinstance(message, Abort) for message in engine.sent)
    assert record_of(engine).e2e_s < 1.01 + 0.1 + 1e-6
    engine.assert_idle()


def test_deadlines_are_each_completions_own():
    engine = VirtualEngine()
    state = engine.submit(n=3, queue_timeout=2.5, max_tokens=6)
    engine.run()
    completions = state.take().outputs
    assert [(c.finish_reason, c.stop_reason) for c in completions] == [
        ("length", None),
        ("length", None),
        ("abort", "queue_timeout"),
    ]
    engine.assert_idle()


def test_a_pause_does_not_stop_the_clock():
    engine = VirtualEngine()
    engine.book.hold()
    states = [
        engine.submit(timeout=2.0),
        engine.submit(queue_timeout=2.0),
        engine.submit(ttft_timeout=2.0, timeout=9.0),
        engine.submit(timeout=30.0),
        engine.submit(),
    ]
    engine.timers.advance(1.9)
    assert all(state.take() is None for state in states)
    engine.timers.advance(0.1)
    assert [ending(state) for state in states[:3]] == [
        ("abort", "timeout", 0),
        ("abort", "queue_timeout", 0),
        ("abort", "ttft_timeout", 0),
    ]
    assert engine.sent == []
    engine.book.resume()
    engine.step()
    assert [len(state.completions[0].token_ids) for state in states[3:]] == [1, 1]
    engine.timers.advance(40.0)
    assert ending(states[3])[:2] == ("abort", "timeout")
    engine.book.abort_all()
    engine.assert_idle()


def test_what_comes_too_late_is_never_sent():
    engine = VirtualEngine()
    engine.book.hold()
    state = engine.submit(timeout=1.0)
    engine.clock.advance(2.0)  # nothing rang: a busy loop
    engine.book.resume()
    assert ending(state) == ("abort", "timeout", 0)
    assert engine.sent == []
    engine.assert_idle()


def test_a_deadline_is_kept_while_there_is_no_engine():
    engine = VirtualEngine(step_s=0.1)
    running, queued, free = engine.submit(timeout=1.0), engine.submit(), engine.submit()
    engine.step(3)
    engine.core.abort([state.completions[0].sequence_id for state in (running, queued, free)])
    engine.book.close_engine(has_failed=True)
    late = engine.submit(ttft_timeout=0.5)
    engine.timers.advance(0.75)
    assert ending(running) == ("abort", "timeout", 3)
    assert ending(late) == ("abort", "ttft_timeout", 0)
    assert not any(isinstance(message, Abort) for message in engine.sent)
    engine.book.open_engine(engine._send)
    engine.step()
    assert len(queued.completions[0].token_ids) == 4
    engine.book.abort_all()
    engine.assert_idle()
    assert [record.stop_reason for record in engine.watcher.finished][:2] == [
        "ttft_timeout",
        "timeout",
    ]


def test_a_pause_gives_back_those_that_the_engine_has():
    engine = VirtualEngine()
    sent = engine.submit()
    assert engine.book.hold() == [sent]
    kept = engine.submit()
    assert engine.book.hold() == [sent]
    assert engine.book.is_on_hold
    engine.book.resume()
    assert engine.book.hold() == [sent, kept]


@pytest.mark.parametrize("policy", ["fcfs", "priority", "deadline", "fair"])
def test_no_step_works_on_a_request_after_its_deadline(policy):
    """Two hundred requests with random deadlines: not one is computed when its time is over."""
    rng = random.Random(7)
    engine = VirtualEngine(step_s=0.05, num_blocks=24, max_num_seqs=6, policy=policy)
    deadlines, first_runs = {}, {}
    for number in range(200):
        state = engine.submit(
            [5] * rng.randrange(1, 120),
            timeout=rng.choice([None, rng.uniform(0.05, 4.0)]),
            queue_timeout=rng.choice([None, rng.uniform(0.05, 4.0)]),
            ttft_timeout=rng.choice([None, rng.uniform(0.05, 4.0)]),
            tenant=str(number % 3),
            max_tokens=rng.randrange(1, 30),
        )
        deadlines[state.completions[0].sequence_id] = state
        for _ in range(rng.randrange(4)):
            engine.step()
    engine.run()
    num_late = num_runs = 0
    for sequence_id, now in engine.runner.runs:
        state = deadlines[sequence_id]
        given, first_token_s = state.reservation.deadlines, state.metrics.first_token_ts
        has_output = 0.0 < first_token_s <= now
        was_scheduled = first_runs.setdefault(sequence_id, now) < now
        missed = given.missed(now, was_scheduled=was_scheduled, has_output=has_output)
        num_late += missed is not None
        num_runs += 1
    assert num_late == 0
    assert num_runs > 1000
    reasons = Counter(record.stop_reason for record in engine.watcher.finished)
    assert reasons.keys() == {None, "timeout", "queue_timeout", "ttft_timeout"}
    assert sum(reasons.values()) == 200
    engine.assert_idle()


# --- counting and places


def test_the_queue_is_what_has_not_been_scheduled():
    engine = VirtualEngine()
    states = [engine.submit([5] * 10) for _ in range(4)]
    stats = engine.book.stats()
    assert (stats.num_queued, stats.num_queued_tokens, stats.drain_rate) == (4, 40, None)
    engine.step()
    stats = engine.book.stats()
    assert (stats.num_queued, stats.num_queued_tokens) == (2, 20)
    assert engine.admission.num_running == 2
    engine.book.abort(states[0])
    assert engine.admission.num_running == 1
    assert engine.book.stats().drain_rate == pytest.approx(2 / 0.0001, rel=1e9)
    engine.book.abort_all()
    engine.assert_idle()


def test_each_completion_gives_up_its_own_seat():
    engine = VirtualEngine(max_num_seqs=3)
    state = engine.submit(n=3, queue_timeout=50.0, timeout=3.5)
    engine.step(2)
    assert engine.admission.num_running == 3
    first = state.completions[0]
    engine.book.on_step(
        StepOutput([TokenOutput(first.sequence_id, [9], "stop")], engine.core.stats())
    )
    assert engine.admission.num_running == 2
    assert engine.book.stats().num_requests == 1
    engine.run()
    assert [c.finish_reason for c in state.completions] == ["stop", "abort", "abort"]
    engine.assert_idle()


def test_a_preempted_sequence_keeps_its_seat_in_the_count():
    engine = VirtualEngine(num_blocks=16)
    preempted(engine)
    assert (engine.admission.num_running, engine.admission.num_queued) == (2, 0)
    assert engine.core.stats().num_running == 1


def test_progress_tells_the_place_in_the_queue_and_when_its_turn_comes():
    engine = VirtualEngine()
    done = [engine.submit(max_tokens=4) for _ in range(2)]
    engine.run()
    assert all(ending(state)[0] == "length" for state in done)
    for name in "abcd":
        engine.submit(request_id=name, max_tokens=4)
    assert engine.book.progress("nobody") is None
    # Not seen by the engine yet: told from the order of arrival.
    assert engine.book.progress("c") == RequestProgress(state="queued", position=3, eta_s=1.5)
    engine.step()
    assert engine.book.progress("a") == RequestProgress(state="running")
    assert engine.book.progress("c") == RequestProgress(state="queued", position=1, eta_s=1.5)
    assert engine.book.progress("d") == RequestProgress(state="queued", position=2, eta_s=3.0)
    (state,) = engine.book.of_id("c")
    engine.book.abort(state)
    assert engine.book.progress("d").position == 1
    assert engine.book.progress("c") is None
    engine.run()
    assert engine.book.progress("d") is None
    engine.assert_idle()


def test_progress_follows_the_policys_order():
    engine = VirtualEngine(policy="fair", max_num_seqs=1)
    engine.submit(tenant="a")
    engine.step()
    for number in range(3):
        engine.submit(tenant="a", request_id=f"a{number}")
    engine.submit(tenant="b", request_id="b")
    engine.step()
    places = {name: engine.book.progress(name).position for name in ("a0", "a1", "a2", "b")}
    assert places == {"a0": 1, "b": 2, "a1": 3, "a2": 4}


def test_progress_during_a_pause_has_no_end():
    engine = VirtualEngine()
    engine.book.hold()
    engine.submit(request_id="a")
    assert engine.book.progress("a") == RequestProgress(state="queued", position=1, eta_s=None)


def test_generated_tokens_are_charged_to_the_tenant():
    limits = Limits(tenants={"a": TenantLimits(tokens_per_minute=60)})
    engine = VirtualEngine(limits=limits)
    engine.submit([5] * 50, tenant="a", max_tokens=20)
    engine.run()  # 20 s, in which 20 of 70 tokens have leaked
    engine.submit(tenant="a", max_tokens=30)
    engine.run()  # 83 used, 50 s
    engine.submit([5] * 40, tenant="a", max_tokens=1)
    with pytest.raises(OverloadedError) as caught:
        engine.submit([5] * 40, tenant="a")
    assert caught.value.reason == "tenant_rate"


def test_watchers_hear_of_each_request_once_whatever_happens():
    rng = random.Random(11)
    limits = Limits(max_num_queued_reqs=6, tenants={"b": TenantLimits(max_queued=1)})
    engine = VirtualEngine(limits=limits, num_blocks=20, max_num_seqs=4)
    num_in = num_out = 0
    states = []
    for _ in range(600):
        try:
            states.append(
                engine.submit(
                    [5] * rng.randrange(1, 90),
                    n=rng.choice([1, 1, 1, 2]),
                    timeout=rng.choice([None, 5.0]),
                    queue_timeout=rng.choice([None, 3.0]),
                    tenant=rng.choice("ab"),
                    max_tokens=rng.randrange(1, 12),
                )
            )
            num_in += 1
        except OverloadedError:
            num_out += 1
        if rng.random() < 0.3:
            engine.book.abort(rng.choice(states))
        if rng.random() < 0.02:
            engine.book.hold()
        if rng.random() < 0.1:
            engine.book.resume()
        engine.step(rng.randrange(3))
        engine.timers.advance(rng.random() / 10)
    engine.book.resume()
    engine.run()
    engine.assert_idle()
    assert num_out > 20
    assert len(engine.watcher.finished) == num_in == engine.book.stats().num_finished
    reasons = Counter(record.finish_reason for record in engine.watcher.finished)
    assert min(reasons["length"], reasons["abort"]) > 50
    num_added = sum(isinstance(message, AddRequest) for message in engine.sent)
    assert num_added >= num_in - reasons["abort"]
