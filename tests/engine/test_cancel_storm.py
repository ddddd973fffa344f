"""Five hundred requests that end at random moments, beside fifty that must not notice.

The real core with a small real model, float32 and greedy: every token of the fifty depends on all
that was computed for it.
"""

from __future__ import annotations

import asyncio
import gc
import random
from collections import Counter
from contextlib import aclosing

import pytest

from tests.engine.test_async_engine import until_idle
from tests.engine.virtual_engine import Watcher
from tests.tiny_model import add_weights, make_model_folder
from wheelpit import AsyncEngineArgs, AsyncLLMEngine, SamplingParams

NUM_OTHERS = 50
NUM_VICTIMS = 500
WAYS = ("cancel", "abort", "break", "timeout")
STATES = ("queued", "in prefill", "decoding", "gone")


@pytest.fixture(scope="module")
def real_engine(tmp_path_factory):
    """Few seats, a small budget and a small cache: everybody queues, chunks and is preempted."""
    engine = AsyncLLMEngine.from_engine_args(
        AsyncEngineArgs(
            model=str(add_weights(make_model_folder(tmp_path_factory.mktemp("real")))),
            dtype="float32",
            num_threads=1,
            max_num_seqs=12,
            max_num_batched_tokens=48,
            num_gpu_blocks_override=20,
        )
    )
    yield engine
    engine.shutdown()


class Steps(Watcher):
    """Counts steps, and wakes whoever waits for one."""

    def __init__(self):
        super().__init__()
        self.number = 0
        self._waiting = {}

    def on_step(self, record):
        self.number += 1
        for future in self._waiting.pop(self.number, ()):
            if not future.done():
                future.set_result(None)

    def later(self, number):
        """Something to wait for that comes so many steps from now."""
        future = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(self.number + number, []).append(future)
        return future


async def run_others(engine):
    """The tokens and their log-probabilities of each of the fifty, who take half of the seats."""
    places = asyncio.Semaphore(6)

    async def one(number):
        rng = random.Random(number)
        prompt = [rng.randrange(3, 259) for _ in range(rng.randrange(1, 100))]
        sampling = SamplingParams(temperature=0.0, max_tokens=24, ignore_eos=True, logprobs=0)
        async with places:
            outputs = [o async for o in engine.generate(prompt, sampling, f"other {number}")]
        completion = outputs[-1].outputs[0]
        assert completion.finish_reason == "length"
        logprobs = [
            position[token_id].logprob
            for token_id, position in zip(completion.token_ids, completion.logprobs, strict=True)
        ]
        return completion.token_ids, logprobs

    return await asyncio.gather(*(one(number) for number in range(NUM_OTHERS)))


def state_of(engine, request_id, num_tokens):
    """What is going on with a request, as far as the front end can tell."""
    progress = engine.progress(request_id)
    if progress is None:
        return "gone"
    if progress.state == "queued":
        return "queued"
    return "decoding" if num_tokens else "in prefill"


class Victim:
    """A request that somebody ends."""

    def __init__(self, engine, steps, number):
        self.engine, self.steps = engine, steps
        self.rng = random.Random(1000 + number)
        self.request_id = f"victim {number}"
        self.way = WAYS[number % 4]
        self.wanted = STATES[number // 4 % 4]
        """The state in which to end it, if it is ended from outside."""
        self.num_tokens = 0
        self.state = None

    async def consume(self):
        rng = self.rng
        length = rng.choice([1, 20, 60, 150])
        prompt = "".join(rng.choice("abcdefgh ") for _ in range(length))
        sampling = SamplingParams(
            n=rng.choice([1, 1, 1, 2]), temperature=1.0, max_tokens=rng.choice([1, 5, 30, 100])
        )
        timeout = rng.uniform(0.001, 0.3) if self.way == "timeout" else None
        num_outputs = rng.randrange(1, 6) if self.way == "break" else 10**6
        outputs = self.engine.generate(prompt, sampling, self.request_id, timeout=timeout)
        async with aclosing(outputs):
            async for output in outputs:
                self.num_tokens += sum(len(each.token_ids) for each in output.outputs)
                num_outputs -= 1
                if not num_outputs:
                    break

    async def run(self):
        task = asyncio.create_task(self.consume())
        await asyncio.sleep(0)
        if self.way in ("cancel", "abort"):
            num_more_steps = self.rng.randrange(4)
            while not task.done():
                self.state = state_of(self.engine, self.request_id, self.num_tokens)
                if self.state == self.wanted:
                    num_more_steps -= 1
                    if num_more_steps < 0:
                        break
                later = self.steps.later(1)
                await asyncio.wait([task, later], return_when=asyncio.FIRST_COMPLETED)
            self.state = state_of(self.engine, self.request_id, self.num_tokens)
            if self.way == "abort":
                await self.engine.abort(self.request_id)
            else:
                task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert task.cancelled() or task.exception() is None, task.exception()


async def storm(engine, steps):
    """All victims, thirty at a time. Returns them."""
    victims = [Victim(engine, steps, number) for number in range(NUM_VICTIMS)]
    places = asyncio.Semaphore(30)

    async def run(victim):
        async with places:
            await victim.run()

    await asyncio.gather(*map(run, victims))
    return victims


def baseline(engine):
    """Everything that is kept for requests, on this side and the other."""
    gc.collect()
    book, admission, stats = engine._book, engine._book._admission, engine.stats()
    return {
        "tasks": len(asyncio.all_tasks()),
        "requests": [len(book._requests), len(book._by_id), len(book._sequences)],
        "places": len(book._places),
        "pending": engine._intake.num_pending,
        "admission": [admission.num_queued, admission.num_queued_tokens, admission.num_running],
        "tenants": admission.num_accounts,
        "gauges": [stats.num_requests, stats.engine.num_running, stats.engine.num_waiting],
        "blocks": stats.engine.kv_cache_usage,
    }


async def test_fifty_do_not_notice_five_hundred_that_end_around_them(real_engine):
    engine, steps = real_engine, Steps()
    engine.add_stat_logger(steps)
    alone = await run_others(engine)
    assert all(len(set(token_ids)) > 8 for token_ids, _ in alone)
    await until_idle(engine)
    before = baseline(engine)
    num_finished, num_preemptions = len(steps.finished), engine.stats().engine.num_preemptions

    others, victims = await asyncio.gather(run_others(engine), storm(engine, steps))
    for (token_ids, logprobs), (expected_ids, expected) in zip(others, alone, strict=True):
        assert token_ids == expected_ids
        # Sums over rows that were computed in other company are rounded otherwise.
        assert logprobs == pytest.approx(expected, abs=1e-4)
    await until_idle(engine)
    assert baseline(engine) == before

    records = steps.finished[num_finished:]
    assert len(records) == NUM_OTHERS + NUM_VICTIMS
    reasons = Counter(record.finish_reason for record in records)
    assert reasons.keys() <= {"abort", "length", "stop"}
    assert reasons["abort"] > NUM_VICTIMS / 2
    assert sum(record.stop_reason == "timeout" for record in records) > 20
    states = Counter(victim.state for victim in victims if victim.state is not None)
    assert min(states[name] for name in STATES) >= 5, states
    assert engine.stats().engine.num_preemptions > num_preemptions
    assert await engine.reset_prefix_cache() is True
