"""Real engine processes that die, hang and are replaced: to the callers it is a pause."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from tests.engine.test_async_engine import collect, params, until
from tests.fake_worker import EXITS, HANGS, fake_worker
from tests.fakes import FakeRunner
from wheelpit import EngineDeadError, RequestOutputKind
from wheelpit.engine.supervisor import EngineState


def expected(prompt: list[int], num_tokens: int) -> list[int]:
    return FakeRunner(vocab_size=259).expected(prompt, num_tokens, seed=7)


def greedy(num_tokens: int, **options):
    return params(max_tokens=num_tokens, seed=7, **options)


async def start_streams(engine, count: int, num_tokens: int):
    """Begin so many requests; returns their tasks once each has a token."""
    seen: set[str] = set()

    async def stream(prompt: list[int], request_id: str):
        pieces = []
        options = greedy(num_tokens, output_kind=RequestOutputKind.DELTA)
        async for output in engine.generate({"prompt_token_ids": prompt}, options, request_id):
            pieces.append(output)
            seen.add(request_id)
        return pieces

    prompts = [[5 + i, 6, 7] for i in range(count)]
    tasks = [asyncio.create_task(stream(prompt, f"s{i}")) for i, prompt in enumerate(prompts)]
    await until(lambda: len(seen) == count)
    return prompts, tasks


async def check_streams(prompts, tasks, num_tokens: int) -> None:
    """Every token once and in order, as if nothing had happened; one end."""
    for prompt, pieces in zip(prompts, await asyncio.gather(*tasks), strict=True):
        tokens = [t for piece in pieces for t in piece.outputs[0].token_ids]
        assert tokens == expected(prompt, num_tokens)
        assert [piece.finished for piece in pieces] == [False] * (len(pieces) - 1) + [True]
        assert pieces[-1].outputs[0].finish_reason == "length"


async def test_streams_go_on_after_the_engine_was_killed_again_and_again(make_engine):
    engine = make_engine(worker=fake_worker(step_ms=10))
    prompts, tasks = await start_streams(engine, 8, 120)
    pids = set()
    for _ in range(3):
        await until(lambda: engine.health().state is EngineState.SERVING)
        pids.add(engine.engine_pid)
        os.kill(engine.engine_pid, signal.SIGKILL)
        await until(lambda: engine.engine_pid not in pids and not engine.errored)
    await check_streams(prompts, tasks, 120)
    assert len(pids) == 3
    assert engine.health().num_restarts == 3
    stats = engine.stats()
    assert (stats.num_requests, stats.num_queued, stats.engine.num_running) == (0, 0, 0)


async def test_a_stopped_engine_is_replaced(make_engine):
    engine = make_engine(worker=fake_worker(step_ms=5), engine_stall_timeout=0.4)
    prompts, tasks = await start_streams(engine, 4, 100)
    pid = engine.engine_pid
    os.kill(pid, signal.SIGSTOP)
    await check_streams(prompts, tasks, 100)
    assert engine.engine_pid != pid
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_health_tells_a_hanging_engine(make_engine):
    engine = make_engine(worker=fake_worker(step_ms=5), engine_stall_timeout=0.4)
    await collect(engine, "abc", params())
    await engine.check_health()
    assert engine.health().state is EngineState.SERVING
    os.kill(engine.engine_pid, signal.SIGSTOP)
    task = asyncio.create_task(collect(engine, [9, 9], greedy(5)))
    await until(lambda: engine.health().num_restarts == 1)
    assert (await task)[-1].outputs[0].token_ids == expected([9, 9], 5)


@pytest.mark.parametrize("poison", [EXITS, HANGS])
async def test_a_request_that_ends_every_engine_ends_alone(make_engine, poison):
    engine = make_engine(worker=fake_worker(step_ms=5), engine_stall_timeout=0.4)
    prompts, tasks = await start_streams(engine, 4, 150)
    bad = await collect(engine, [poison, 5], greedy(10), "bad")
    assert bad[-1].finished
    assert bad[-1].outputs[0].finish_reason == "error"
    assert "3 engine processes in a row died while it ran" in bad[-1].outputs[0].error
    await check_streams(prompts, tasks, 150)
    assert engine.health().num_restarts == 3


async def test_a_request_may_wait_for_an_engine_that_is_not_there(make_engine):
    engine = make_engine()
    await collect(engine, "abc", params())
    os.kill(engine.engine_pid, signal.SIGKILL)
    await until(lambda: engine.health().state is not EngineState.SERVING)
    (last,) = (await collect(engine, [8, 9], greedy(4)))[-1:]
    assert last.outputs[0].token_ids == expected([8, 9], 4)


async def test_what_is_aborted_between_two_engines_is_not_sent_to_the_next(make_engine):
    engine = make_engine(worker=fake_worker(step_ms=10))
    prompts, tasks = await start_streams(engine, 2, 100)
    os.kill(engine.engine_pid, signal.SIGKILL)
    await until(lambda: engine.health().state is not EngineState.SERVING)
    await engine.abort("s0")
    pieces = await tasks[0]
    assert pieces[-1].outputs[0].finish_reason == "abort"
    await check_streams(prompts[1:], tasks[1:], 100)
    assert engine.stats().num_queued == 0


async def test_an_engine_can_be_replaced_on_purpose(make_engine):
    engine = make_engine(worker=fake_worker(step_ms=10), max_restarts=0)
    prompts, tasks = await start_streams(engine, 4, 60)
    pid = engine.engine_pid
    engine.restart_engine("a new driver")
    await check_streams(prompts, tasks, 60)
    assert engine.engine_pid != pid


async def test_a_call_is_answered_by_the_next_engine(make_engine):
    engine = make_engine()
    await collect(engine, "abc", params())
    os.kill(engine.engine_pid, signal.SIGSTOP)
    call = asyncio.create_task(engine.reset_prefix_cache())
    await asyncio.sleep(0)
    engine.restart_engine()
    assert await call is True


async def test_too_many_deaths_end_everything_with_the_reason(make_engine):
    engine = make_engine(worker=fake_worker(step_ms=10), max_restarts=1)
    _, tasks = await start_streams(engine, 3, 500)
    for _ in range(2):
        await until(lambda: engine.health().state is EngineState.SERVING)
        os.kill(engine.engine_pid, signal.SIGKILL)
        await until(lambda: engine.health().state is not EngineState.SERVING)
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        assert isinstance(result, EngineDeadError)
        assert "signal 9" in str(result.__cause__)
    assert engine.errored
    with pytest.raises(EngineDeadError):
        await engine.check_health()


async def test_logprobs_stop_strings_and_several_completions_survive(make_engine):
    undisturbed = make_engine(worker=fake_worker(step_ms=2))
    engine = make_engine(worker=fake_worker(step_ms=10))
    cases = {
        "n": greedy(60, n=3, temperature=1.0),
        "logprobs": greedy(60, logprobs=2),
        "prompt": greedy(60, prompt_logprobs=1),
        "min": greedy(60, min_tokens=30, repetition_penalty=1.3),
        "penalties": greedy(60, presence_penalty=0.5, frequency_penalty=0.5),
    }
    text = (await collect(undisturbed, [5, 6, 7], greedy(60), "text"))[-1].outputs[0].text
    last = text[-12:-8]
    assert text.count(last) == 1
    cases["stop"] = greedy(60, stop=[last])
    wanted = {
        name: await collect(undisturbed, [5, 6, 7], options, name)
        for name, options in cases.items()
    }
    tasks = {
        name: asyncio.create_task(collect(engine, [5, 6, 7], options, name))
        for name, options in cases.items()
    }
    await until(lambda: engine.stats().num_generation_tokens > 60)
    os.kill(engine.engine_pid, signal.SIGKILL)
    for name, task in tasks.items():
        got = await task
        assert got[-1].prompt_logprobs == wanted[name][-1].prompt_logprobs
        mine, theirs = last_of_each(got), last_of_each(wanted[name])
        assert mine.keys() == theirs.keys()
        for index, completion in mine.items():
            assert completion.token_ids == theirs[index].token_ids
            assert completion.text == theirs[index].text
            assert completion.logprobs == theirs[index].logprobs
            assert completion.finish_reason == theirs[index].finish_reason
            assert completion.stop_reason == theirs[index].stop_reason
    assert engine.health().num_restarts == 1
    assert last_of_each(wanted["stop"])[0].stop_reason == last


def last_of_each(outputs):
    """The last state of each completion; an output has those with news only."""
    return {completion.index: completion for output in outputs for completion in output.outputs}


async def test_deadlines_go_on_while_there_is_no_engine(make_engine):
    engine = make_engine(worker=fake_worker(step_ms=10))
    await collect(engine, "abc", params())
    os.kill(engine.engine_pid, signal.SIGSTOP)
    last = None
    async for output in engine.generate("abc", greedy(5), "late", timeout=0.2):
        last = output
    assert (last.outputs[0].finish_reason, last.outputs[0].stop_reason) == ("abort", "timeout")
    os.kill(engine.engine_pid, signal.SIGCONT)
    assert (await collect(engine, [5, 6], greedy(5)))[-1].finished


@pytest.mark.parametrize(
    "nonsense", [b"\xff" * 64, (3).to_bytes(4, "little") + b"\xc1" * 3, b"\x00" * 8]
)
async def test_an_engine_that_is_sent_nonsense_ends_and_is_replaced(make_engine, nonsense):
    """As if memory were damaged: the process must not go on with half a message, nor hang."""
    engine = make_engine(worker=fake_worker(step_ms=5))
    prompts, tasks = await start_streams(engine, 4, 100)
    pid = engine.engine_pid
    engine._link._supervisor.engine.process.channel._socket.sendall(nonsense)
    await check_streams(prompts, tasks, 100)
    assert engine.health().num_restarts == 1
    assert engine.engine_pid != pid
