"""Admission, deadlines and tenants through the whole engine, whose runner alone is fake."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections import Counter
from dataclasses import replace

import pytest

from tests.engine.test_async_engine import collect, first_of, params, until, until_idle
from tests.engine.virtual_engine import Watcher
from tests.fake_worker import HANGS, fake_worker
from wheelpit import EngineDeadError, EngineGenerateError, OverloadedError, ValidationError
from wheelpit.engine.admission import Limits, TenantLimits
from wheelpit.text.tokenizer import Tokenizer

LONG = params(max_tokens=200)


def queued(engine):
    """(sequences, tokens, pending reservations) that wait as the front end counts them."""
    stats = engine.stats()
    return stats.num_queued, stats.num_queued_tokens, engine._intake.num_pending


async def until_nothing_is_left(engine):
    await until_idle(engine)
    admission = engine._book._admission
    assert queued(engine) == (0, 0, 0)
    assert (admission.num_running, admission.num_accounts) == (0, 0)


@pytest.fixture
def watched(make_engine):
    """Start an engine and return it with a list of the requests that have ended."""

    def make(**options):
        engine = make_engine(**{"worker": fake_worker(step_ms=5), **options})
        watcher = Watcher()
        engine.add_stat_logger(watcher)
        return engine, watcher.finished

    return make


def endings(finished):
    return [(record.request_id, record.finish_reason, record.stop_reason) for record in finished]


def last(outputs):
    (completion,) = outputs[-1].outputs
    return completion.finish_reason, completion.stop_reason


class Gate:
    """Holds tokenizing back until it is opened."""

    def __init__(self, monkeypatch, error=None):
        self.opened = asyncio.Event()
        self.num_waiting = 0
        encode = Tokenizer.encode_async

        async def held_back(tokenizer, text, add_special_tokens=True):
            self.num_waiting += 1
            await self.opened.wait()
            if error is not None:
                raise error
            return await encode(tokenizer, text, add_special_tokens)

        monkeypatch.setattr(Tokenizer, "encode_async", held_back)


# --- refusals


async def test_who_finds_the_queue_full_is_refused_before_tokenizing(watched, monkeypatch):
    engine, finished = watched(max_num_seqs=2, max_num_queued_reqs=1)
    tasks = [asyncio.create_task(collect(engine, [5, 6], LONG, f"r{i}")) for i in range(3)]
    await until(lambda: engine.stats().num_requests == 3)
    Gate(monkeypatch)  # whoever came to tokenizing would wait there for ever
    with pytest.raises(OverloadedError, match="max_num_queued_reqs") as caught:
        await collect(engine, "text", LONG, "late")
    assert caught.value.reason == "queue_full"
    assert caught.value.retry_after_s >= 1.0
    assert endings(finished) == [("late", "refused", "queue_full")]
    assert engine.stats().num_requests == 3
    await engine.abort(["r0", "r1", "r2"])
    await asyncio.gather(*tasks)
    await until_nothing_is_left(engine)
    assert (await collect(engine, [5, 6], params()))[-1].finished
    assert Counter(reason for _, reason, _ in endings(finished)) == {
        "refused": 1,
        "abort": 3,
        "length": 1,
    }
    assert engine.stats().num_finished == 5


async def test_a_burst_cannot_pass_before_it_is_counted(watched):
    """All of them are submitted before the engine process has heard of one."""
    engine, finished = watched(max_num_seqs=2, max_num_queued_reqs=3)
    results = await asyncio.gather(
        *(collect(engine, "a text", params(max_tokens=3), str(i)) for i in range(50)),
        return_exceptions=True,
    )
    refused = [result for result in results if isinstance(result, OverloadedError)]
    assert len(refused) == 45
    assert [last(result) for result in results if isinstance(result, list)] == [
        ("length", None)
    ] * 5
    assert len(finished) == 50
    await until_nothing_is_left(engine)


async def test_bounds_are_off_unless_asked_for(engine):
    assert engine.limits == Limits()


# --- reservations


async def test_a_reservation_is_taken_over_by_generate(watched):
    engine, finished = watched(tenant_config=None)
    reservation = engine.reserve("r", num_tokens=100, tenant="a", priority=0, timeout=60.0)
    assert queued(engine) == (1, 100, 1)
    generator = engine.generate([5, 6, 7], LONG, "r", reservation=reservation)
    first = await first_of(generator)
    assert not first.finished
    engine.release(reservation)
    assert engine.has_unfinished_requests()
    await generator.aclose()
    engine.release(reservation)
    assert endings(finished) == [("r", "abort", None)]
    assert finished[0].tenant == "a"
    await until_nothing_is_left(engine)


async def test_the_estimate_is_replaced_after_tokenizing(watched, monkeypatch):
    engine, _ = watched(max_num_seqs=1)
    busy = engine.generate([5], LONG, "busy")
    await first_of(busy)
    gate = Gate(monkeypatch)
    task = asyncio.create_task(collect(engine, "12345678", LONG, "r"))
    await until(lambda: gate.num_waiting)
    assert queued(engine) == (1, 2, 1)
    gate.opened.set()
    await until(lambda: engine.stats().num_requests == 2)
    assert queued(engine) == (1, 8, 0)  # the tiny tokenizer makes a token of each byte
    await engine.abort("r")
    await task
    await busy.aclose()
    await until_nothing_is_left(engine)


@pytest.mark.parametrize(
    ("error", "ending"),
    [
        (None, ("abort", None)),
        (asyncio.CancelledError(), ("abort", None)),
        (ValidationError("no"), ("refused", "invalid")),
        (KeyError("odd"), ("error", None)),
        (EngineDeadError(), ("error", None)),
    ],
)
async def test_a_reservation_that_is_not_used_is_given_back_and_counted(watched, error, ending):
    engine, finished = watched()
    reservation = engine.reserve("r", num_tokens=5)
    engine.release(reservation, error)
    engine.release(reservation, error)
    assert endings(finished) == [("r", *ending)]
    assert queued(engine) == (0, 0, 0)
    with pytest.raises(ValueError, match="used before"):
        await collect_reserved(engine, "r", reservation)


async def collect_reserved(engine, request_id, reservation, **given):
    prompt = given.pop("prompt", [5, 6])
    sampling = given.pop("sampling_params", params(max_tokens=2))
    return [
        output
        async for output in engine.generate(
            prompt, sampling, request_id, reservation=reservation, **given
        )
    ]


@pytest.mark.parametrize(
    "given",
    [
        {"tenant": "b"},
        {"priority": 1},
        {"timeout": 5.0},
        {"arrival_time": 5.0},
        {"request_id": "other"},
        {"sampling_params": params(n=2, temperature=1.0)},
        {"sampling_params": params(logprobs=21)},
        {"prompt": ""},
        {"prompt": [10_000]},
    ],
    ids=str,
)
async def test_a_generate_that_contradicts_its_reservation_gives_it_back(watched, given):
    engine, finished = watched()
    reservation = engine.reserve("r", num_tokens=5)
    with pytest.raises(ValueError):
        await collect_reserved(engine, given.pop("request_id", "r"), reservation, **given)
    assert endings(finished) == [("r", "refused", "invalid")]
    assert queued(engine) == (0, 0, 0)


async def test_a_reservation_that_is_in_use_stays_with_its_first_user(watched):
    engine, finished = watched()
    reservation = engine.reserve("r", num_tokens=5)
    generator = engine.generate([5, 6], LONG, "r", reservation=reservation)
    await first_of(generator)
    with pytest.raises(ValueError, match="used before"):
        await collect_reserved(engine, "r", reservation)
    assert (await generator.__anext__()).finished is False
    await generator.aclose()
    assert endings(finished) == [("r", "abort", None)]


@pytest.mark.parametrize("name", ["timeout", "queue_timeout", "ttft_timeout"])
@pytest.mark.parametrize("value", [0, -1.0, float("nan"), float("inf"), "5", True])
async def test_a_timeout_that_is_none_is_refused_by_name(engine, name, value):
    with pytest.raises(ValidationError) as caught:
        await first_of(engine.generate("abc", LONG, "r", **{name: value}))
    assert caught.value.parameter == name
    with pytest.raises(ValidationError):
        engine.reserve("r", num_tokens=1, **{name: value})
    assert queued(engine) == (0, 0, 0)


# --- every way out before the engine has heard of it


async def test_cancelled_while_it_is_tokenized(watched, monkeypatch):
    engine, finished = watched()
    gate = Gate(monkeypatch)
    task = asyncio.create_task(collect(engine, "abc", LONG))
    await until(lambda: gate.num_waiting)
    assert queued(engine)[0] == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert endings(finished) == [("r", "abort", None)]
    await until_nothing_is_left(engine)


async def test_aborted_while_it_is_tokenized(watched, monkeypatch):
    engine, finished = watched()
    gate = Gate(monkeypatch)
    task = asyncio.create_task(collect(engine, "abc", LONG))
    await until(lambda: gate.num_waiting)
    await engine.abort("r")
    gate.opened.set()
    (output,) = await task
    assert output.finished
    assert last([output]) == ("abort", None)
    assert output.outputs[0].token_ids == []
    assert endings(finished) == [("r", "abort", None)]
    await until_nothing_is_left(engine)


@pytest.mark.parametrize(
    ("error", "raised", "ending"),
    [
        (RuntimeError("broken vocabulary"), EngineGenerateError, ("error", None)),
        (TypeError("a bug"), EngineGenerateError, ("error", None)),
        (ValueError("odd text"), ValueError, ("refused", "invalid")),
    ],
)
async def test_a_tokenizer_that_fails(watched, monkeypatch, error, raised, ending):
    engine, finished = watched()
    Gate(monkeypatch, error).opened.set()
    with pytest.raises(raised):
        await collect(engine, "abc", LONG)
    assert endings(finished) == [("r", *ending)]
    await until_nothing_is_left(engine)


async def test_a_prompt_that_turns_out_too_long(watched):
    engine, finished = watched()
    with pytest.raises(ValueError, match="longer than the maximum model length"):
        await collect(engine, "x" * 300, LONG)
    assert endings(finished) == [("r", "refused", "invalid")]
    await until_nothing_is_left(engine)


@pytest.mark.parametrize(
    ("prompt", "given"), [([], {}), ("abc", {"logprobs": 21}), (5, {}), (["a"], {})]
)
async def test_what_is_wrong_at_sight_is_counted_too(watched, prompt, given):
    engine, finished = watched()
    with pytest.raises((ValueError, EngineGenerateError)):
        await collect(engine, prompt, params(**given))
    assert endings(finished) == [("r", "refused", "invalid")]
    assert queued(engine) == (0, 0, 0)


async def test_the_engine_dies_while_it_is_tokenized(watched, monkeypatch):
    engine, finished = watched(max_restarts=0)
    gate = Gate(monkeypatch)
    reservation = engine.reserve("mine", num_tokens=3)
    task = asyncio.create_task(collect(engine, "abc", LONG))
    await until(lambda: gate.num_waiting)
    os.kill(engine.engine_pid, signal.SIGKILL)
    await until(lambda: engine.errored)
    gate.opened.set()
    with pytest.raises(EngineDeadError):
        await task
    with pytest.raises(EngineDeadError):
        await collect_reserved(engine, "mine", reservation)
    assert sorted(endings(finished)) == [("mine", "error", None), ("r", "error", None)]
    assert queued(engine) == (0, 0, 0)


def test_a_second_loop_gives_the_reservation_back(make_engine):
    engine = make_engine()
    watcher = Watcher()
    engine.add_stat_logger(watcher)

    async def main():
        await collect(engine, "abc", params())
        reservation = engine.reserve("r", num_tokens=3)
        with pytest.raises(RuntimeError, match="another event loop"):
            await asyncio.to_thread(asyncio.run, collect_reserved(engine, "r", reservation))

    asyncio.run(main())
    assert endings(watcher.finished) == [("r", "length", None), ("r", "error", None)]
    assert queued(engine) == (0, 0, 0)


# --- deadlines


async def test_a_missed_timeout_ends_with_abort_and_all_tokens_so_far(watched):
    engine, finished = watched(worker=fake_worker(step_ms=20))
    outputs = [o async for o in engine.generate([5, 6], LONG, "r", timeout=0.5)]
    assert last(outputs) == ("abort", "timeout")
    assert 0 < len(outputs[-1].outputs[0].token_ids) < 200
    assert endings(finished) == [("r", "abort", "timeout")]
    await until_nothing_is_left(engine)


async def test_who_waits_too_long_ends_without_a_token(watched):
    engine, finished = watched(max_num_seqs=1)
    busy = engine.generate([5], LONG, "busy")
    await first_of(busy)
    outputs = [o async for o in engine.generate([5, 6], LONG, "r", queue_timeout=0.05)]
    assert [output.outputs[0].token_ids for output in outputs] == [[]]
    assert last(outputs) == ("abort", "queue_timeout")
    await busy.aclose()
    assert endings(finished)[0] == ("r", "abort", "queue_timeout")
    await until_nothing_is_left(engine)


@pytest.mark.parametrize("name", ["timeout", "ttft_timeout"])
async def test_a_step_that_hangs_does_not_hold_a_deadline_up(watched, name):
    engine, finished = watched()
    outputs = [o async for o in engine.generate([HANGS, 5], LONG, "r", **{name: 0.05})]
    assert last(outputs) == ("abort", name)
    assert endings(finished) == [("r", "abort", name)]
    assert queued(engine) == (0, 0, 0)


async def test_defaults_hold_for_those_who_say_nothing(watched):
    engine, finished = watched(default_timeout=0.1, worker=fake_worker(step_ms=20))
    assert last(await collect(engine, [5, 6], LONG)) == ("abort", "timeout")
    generous = [o async for o in engine.generate([5], params(max_tokens=8), "s", timeout=60.0)]
    assert last(generous) == ("length", None)
    assert endings(finished) == [("r", "abort", "timeout"), ("s", "length", None)]


async def test_a_request_that_is_late_on_arrival_is_never_run(watched):
    engine, finished = watched()
    before = engine.stats().engine.num_steps
    outputs = [
        o async for o in engine.generate([5, 6], LONG, "r", timeout=5.0, arrival_time=1000.0)
    ]
    assert last(outputs) == ("abort", "timeout")
    await engine.reset_prefix_cache()  # a round trip: nothing is on its way
    assert engine.stats().engine.num_steps == before
    assert endings(finished) == [("r", "abort", "timeout")]


async def test_refuse_late_says_so_at_once(watched):
    engine, finished = watched(max_num_seqs=1, refuse_late=True)
    for number in range(3):
        await collect(engine, [5], params(max_tokens=40), f"known {number}")  # 0.2 s each
    busy = engine.generate([5], LONG, "busy")
    await first_of(busy)
    with pytest.raises(OverloadedError) as caught:
        await first_of(engine.generate([5, 6], LONG, "r", queue_timeout=0.01))
    assert caught.value.reason == "deadline"
    assert caught.value.estimate_s > 0.01
    assert endings(finished)[-1] == ("r", "refused", "deadline")
    await busy.aclose()
    await until_nothing_is_left(engine)


def test_timers_do_not_outlive_their_loop(make_engine):
    import uvloop

    engine = make_engine(worker=fake_worker(step_ms=20))
    watcher = Watcher()
    engine.add_stat_logger(watcher)

    async def leave_one_running(name):
        collector = await engine.add_request(name, [5, 6], LONG, timeout=50.0)
        await collector.get()

    for run in (asyncio.run, uvloop.run, asyncio.run):
        run(leave_one_running("r"))
    asyncio.run(collect(engine, "abc", params()))
    assert endings(watcher.finished) == [("r", "abort", None)] * 3 + [("r", "length", None)]
    assert queued(engine) == (0, 0, 0)


# --- while paused


async def test_a_held_request_can_be_aborted(watched):
    engine, finished = watched()
    await engine.pause_generation()
    task = asyncio.create_task(collect(engine, "abc", LONG))
    await until(lambda: engine.stats().num_requests == 1)
    await engine.abort("r")
    (output,) = await task
    assert last([output]) == ("abort", None)
    assert output.prompt_token_ids == engine.get_tokenizer().encode("abc")
    await engine.resume_generation()
    assert endings(finished) == [("r", "abort", None)]
    await until_nothing_is_left(engine)


async def test_a_held_request_times_out(watched):
    engine, _ = watched()
    await engine.pause_generation()
    outputs = [o async for o in engine.generate("abc", LONG, "r", queue_timeout=0.05)]
    assert last(outputs) == ("abort", "queue_timeout")
    await engine.resume_generation()
    await until_nothing_is_left(engine)


async def test_a_held_request_ends_with_the_engine(watched):
    """Who waited for the end of a pause used to wait for ever when the engine died in it."""
    engine, finished = watched(max_restarts=0)
    await engine.pause_generation()
    task = asyncio.create_task(collect(engine, "abc", LONG))
    await until(lambda: engine.stats().num_requests == 1)
    os.kill(engine.engine_pid, signal.SIGKILL)
    with pytest.raises(EngineDeadError):
        await task
    assert endings(finished) == [("r", "error", None)]
    assert queued(engine) == (0, 0, 0)


async def test_a_pause_can_wait_while_others_come(watched):
    engine, _ = watched()
    running = asyncio.create_task(collect(engine, [5], params(max_tokens=30), "running"))
    await until(lambda: engine.stats().num_generation_tokens)
    pausing = asyncio.create_task(engine.pause_generation(mode="wait"))
    await until(lambda: engine._book.is_on_hold)
    held = [asyncio.create_task(collect(engine, "abc", params(), f"h{i}")) for i in range(3)]
    await pausing
    assert last(await running) == ("length", None)
    assert engine.stats().num_requests == 3
    held[0].cancel()
    await engine.resume_generation()
    results = await asyncio.gather(*held, return_exceptions=True)
    assert isinstance(results[0], asyncio.CancelledError)
    assert [last(outputs) for outputs in results[1:]] == [("length", None)] * 2
    await until_nothing_is_left(engine)


# --- tenants and limits at run time

TENANTS = """
[default]
max_queued = 1

[tenants.small]
api_keys = ["sk-small"]
max_running = 1
"""


class MostRunning(Watcher):
    """The most sequences of a tenant that were in seats at a time."""

    def __init__(self, admission, tenant):
        super().__init__()
        self._admission, self._tenant = admission, tenant
        self.number = 0

    def on_step(self, record):
        account = self._admission._accounts.get(self._tenant)
        if account is not None:
            self.number = max(self.number, account.num_running)


async def test_a_tenants_seats_and_queue_are_limited(watched, tmp_path):
    path = tmp_path / "tenants.toml"
    path.write_text(TENANTS)
    engine, finished = watched(max_num_seqs=4, tenant_config=str(path))
    assert list(engine.tenant_keys.values()) == ["small"]
    most = MostRunning(engine._book._admission, "small")
    engine.add_stat_logger(most)

    async def run(tenant, request_id):
        generator = engine.generate([5, 6], params(max_tokens=10), request_id, tenant=tenant)
        return [output async for output in generator]

    results = await asyncio.gather(*(run("small", str(i)) for i in range(6)))
    assert [last(outputs) for outputs in results] == [("length", None)] * 6
    assert most.number == 1
    assert {record.tenant for record in finished} == {"small"}

    # Others may queue one beyond the free seats.
    results = await asyncio.gather(
        *(run("other", str(i)) for i in range(8)), return_exceptions=True
    )
    refused = [result for result in results if isinstance(result, OverloadedError)]
    assert {error.reason for error in refused} == {"tenant_queue"}
    assert len(refused) == 3

    tenants = {"small": TenantLimits(max_running=3)}
    engine.update_limits(replace(engine.limits, tenants=tenants))
    await asyncio.gather(*(run("small", str(i)) for i in range(6)), return_exceptions=True)
    assert most.number == 3
    await until_nothing_is_left(engine)


async def test_the_next_engine_knows_the_tenants_too(watched, tmp_path):
    path = tmp_path / "tenants.toml"
    path.write_text(TENANTS)
    engine, finished = watched(max_num_seqs=4, tenant_config=str(path))
    first = engine.generate([5, 6], params(max_tokens=40), "first", tenant="small")
    await first_of(first)
    most = MostRunning(engine._book._admission, "small")
    os.kill(engine.engine_pid, signal.SIGKILL)

    async def run(request_id):
        generator = engine.generate([5, 6], params(max_tokens=5), request_id, tenant="small")
        return [output async for output in generator]

    engine.add_stat_logger(most)
    results = await asyncio.gather(*(run(str(i)) for i in range(4)))
    assert [last(outputs) for outputs in results] == [("length", None)] * 4
    assert last([output async for output in first]) == ("length", None)
    assert most.number == 1
    assert len(finished) == 5
    await until_nothing_is_left(engine)


async def test_changed_limits_are_logged_one_by_one(watched, caplog):
    engine, _ = watched(max_num_queued_reqs=5)
    with caplog.at_level(logging.INFO, "wheelpit.engine.intake"):
        engine.update_limits(replace(engine.limits, max_num_queued_reqs=0, refuse_late=True))
        engine.update_limits(engine.limits)
    assert caplog.messages == [
        "limit max_num_queued_reqs: 5 -> 0",
        "limit refuse_late: False -> True",
    ]
    assert engine.limits.max_num_queued_reqs == 0


async def test_priority_without_the_policy_for_it_warns_once(make_engine, caplog):
    plain, ranked = make_engine(), make_engine(scheduling_policy="priority")
    for engine in (plain, ranked):
        for number in range(3):
            async for _ in engine.generate("abc", params(), str(number), priority=number):
                pass
    warnings = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert warnings == [
        "priority=1 has no effect under the fcfs policy: use scheduling_policy=priority"
    ]


async def test_progress_is_told_while_a_request_waits(watched):
    engine, _ = watched(max_num_seqs=1)
    busy = engine.generate([5], LONG, "busy")
    await first_of(busy)
    assert engine.progress("busy").state == "running"
    tasks = [asyncio.create_task(collect(engine, [5], params(), name)) for name in "ab"]
    await until(lambda: engine.stats().engine.num_waiting == 2)
    assert [engine.progress(name).position for name in "ab"] == [1, 2]
    assert engine.progress("nobody") is None
    await busy.aclose()
    await asyncio.gather(*tasks)
    assert engine.progress("a") is None


# --- the log


async def test_each_request_leaves_one_line_in_the_log(watched, caplog, monkeypatch):
    engine, finished = watched(max_num_seqs=1, max_num_queued_reqs=1)
    with caplog.at_level(logging.INFO, "wheelpit.engine.stats"):
        await collect(engine, [5, 6], params(), "whole")
        busy = engine.generate([5], LONG, "left", tenant="acme")
        await first_of(busy)
        late = [o async for o in engine.generate([5], LONG, "late", queue_timeout=0.05)]
        assert last(late) == ("abort", "queue_timeout")
        waiting = asyncio.create_task(collect(engine, [5], LONG, "aborted"))
        await until(lambda: engine.stats().num_requests == 2)
        for request_id, wrong in (("refused", {}), ("invalid", {"logprobs": 21})):
            with pytest.raises((OverloadedError, ValueError)):
                await collect(engine, [5], params(**wrong), request_id)
        await engine.abort("aborted")
        await waiting
        await busy.aclose()
    lines = [line for line in caplog.messages if line.startswith("request ")]
    assert [line.split(" in ")[0] for line in lines] == [
        "request whole: length, 2 prompt + 8 output tokens",
        "request late: abort (queue_timeout), 1 prompt + 0 output tokens",
        "request refused: refused (queue_full)",
        "request invalid: refused (invalid)",
        "request aborted: abort, 1 prompt + 0 output tokens",
        lines[5].split(" in ")[0],
    ]
    assert lines[5].startswith("request left: abort, tenant acme, 1 prompt + ")
    assert len(finished) == len(lines) == engine.stats().num_finished
