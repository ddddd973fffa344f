"""Thousands of requests later, both processes are as they were."""

from __future__ import annotations

import asyncio
import gc
import os
from pathlib import Path

from wheelpit import SamplingParams

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def rss_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE_BYTES


def count_open_files(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


async def run_some(engine, count, offset):
    """Requests of every kind of end: whole, stopped, left early, aborted, refused."""

    async def one(number):
        params = SamplingParams(
            max_tokens=8, stop=["zz"] if number % 2 else None, temperature=1.0, logprobs=1
        )
        prompt = [3 + number % 240, *range(3, 3 + number % 60)]
        if number % 7 == 0:
            params.n = 2
        if number % 11 == 0:
            prompt = [10_000]
        try:
            async for _ in engine.generate(prompt, params, str(number)):
                if number % 5 == 0:
                    break
                if number % 13 == 0:
                    await engine.abort(str(number))
        except ValueError:
            assert number % 11 == 0

    numbers = range(offset, offset + count)
    for start in range(0, count, 50):
        await asyncio.gather(*(one(number) for number in numbers[start : start + 50]))


async def test_two_thousand_requests_leave_nothing_behind(make_engine):
    engine = make_engine()
    pids = {"front end": os.getpid(), "engine": engine.engine_pid}
    await run_some(engine, 600, 0)
    gc.collect()
    objects = len(gc.get_objects())
    tasks = len(asyncio.all_tasks())
    files = {name: count_open_files(pid) for name, pid in pids.items()}
    memory = {name: rss_bytes(pid) for name, pid in pids.items()}

    await run_some(engine, 2000, 600)
    gc.collect()
    assert not engine.has_unfinished_requests()
    assert len(engine._book._sequences) == 0
    assert len(asyncio.all_tasks()) == tasks
    assert len(gc.get_objects()) - objects < 500
    for name, pid in pids.items():
        assert count_open_files(pid) == files[name], name
        grown = rss_bytes(pid) - memory[name]
        assert grown < 6 * 2**20, f"{name} grew by {grown / 2**20:.1f} MiB"
