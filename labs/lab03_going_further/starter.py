"""Lab 03: Going Further. Five parts, in any order: the functions and classes marked TODO.

python starter.py                      show every part that you have started
pytest test_lab.py -v                  grade them; a part that is not started is skipped
pytest test_lab.py -v -k todoA         grade part A
"""

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent))  # labkit is there, or beside this file

from labkit.asgi import Exchange
from labkit.backend import (
    DEFAULT_MODEL,
    AsyncEngineArgs,
    AsyncLLMEngine,
    RequestOutput,
    SamplingParams,
    ask,
    close,
)
from labkit.learner import Learner

try:
    from fastapi import FastAPI, Request
    from fastapi.responses import PlainTextResponse, StreamingResponse
    from pydantic import BaseModel, Field
except ImportError:
    FastAPI = None  # part D needs it: pip install fastapi

HERE = Path(__file__).resolve()


async def generate_until(
    engine: AsyncLLMEngine,
    prompt: str,
    sampling_params: SamplingParams,
    request_id: str,
    stop: asyncio.Event,
) -> tuple[str, bool]:
    """TODO A: generate until the answer is finished or `stop` is set, whichever is first.

    Return the text so far, and True if the answer was finished, False if it was stopped. Setting
    `stop` must work at any moment: also when no further token ever comes, also before the first.
    Afterwards nothing is left over: neither the request in the engine nor a task of yours. Errors
    and cancellation pass through, and leave nothing over either.
    """
    raise NotImplementedError("TODO A: generate until the answer is finished or stop is set")


class PriorityDispatcher:
    """TODO B: let at most `max_in_flight` requests into the engine; the urgent ones first.

    When all places are taken, requests wait here. A free place goes to the waiting request with
    the smallest priority number, and among equals to the one that came first. A place becomes
    free however its request ends. A waiting request whose caller was cancelled never starts. When
    nothing runs or waits, no task of the dispatcher is left.
    """

    def __init__(self, engine: AsyncLLMEngine, max_in_flight: int) -> None:
        """Remember the engine, and how many requests may be in it at a time."""
        raise NotImplementedError("TODO B: remember the engine and the limit")

    async def submit(
        self,
        prompt: str,
        sampling_params: SamplingParams,
        request_id: str,
        priority: int = 0,
    ) -> str:
        """Wait for a place, run the request, return its whole text. Its errors are raised here."""
        raise NotImplementedError("TODO B: wait for a place, run the request, return its text")


async def generate_with_timeout(
    engine: AsyncLLMEngine,
    prompt: str,
    sampling_params: SamplingParams,
    request_id: str,
    timeout_s: float,
) -> str:
    """TODO C: return the whole text, or raise TimeoutError when it takes longer than timeout_s.

    The budget is for the whole request, not for each token, and it ends also when no token ever
    comes. Afterwards the request is gone from the engine. Part of a text is never returned as if
    it were whole. Whoever cancels the caller gets CancelledError, not TimeoutError; the engine's
    errors pass. (The engine has a `timeout=` of its own; here you write one.)
    """
    raise NotImplementedError("TODO C: return the whole text, or raise TimeoutError")


def create_app(engine: AsyncLLMEngine) -> "FastAPI":
    """TODO D: return a FastAPI app that serves this engine.

    POST /generate  takes {"prompt": str, "max_tokens": int = 64, "stream": bool = false}. Answers
                    {"text": ...}; with "stream" plain text, each new piece as soon as it is there.
                    The other sampling parameters are up to you.
    GET /health     answers 200.
    GET /metrics    answers plain text with the lines "requests_total N" (requests the engine got)
                    and "requests_running N" (those of them that have not ended).

    All requests share the one engine, each with an id of its own. When a client leaves, its
    request ends in the engine at once, streaming or not. A body that is no such object (no
    prompt, or not a text; max_tokens no number, or below 1) gets a 4xx, and the engine never
    hears of it. An error of the engine is a 5xx, without a traceback in the answer.
    """
    raise NotImplementedError("TODO D: return a FastAPI app that serves this engine")


@dataclass(frozen=True)
class Snapshot:
    """What a Monitor counts and measures, at one moment (given). All times are seconds."""

    submitted: int
    waiting: int
    running: int
    completed: int
    failed: int
    cancelled: int
    waiting_s: tuple[float, ...]
    ttft_s: tuple[float, ...]
    latency_s: tuple[float, ...]


class Monitor:
    """TODO E: stand before an engine, count its requests and measure them.

    A request is submitted when somebody starts to iterate it. It is waiting until its first output
    comes, then running, and it ends in one of three ways:

    completed  the engine's last output (`finished`) has come, whatever the reader does with it
    failed     the engine raised an error
    cancelled  its reader left or was cancelled before that, or the last output's finish_reason
               is "abort"

    At every moment submitted = waiting + running + completed + failed + cancelled.
    """

    def __init__(self, engine: AsyncLLMEngine) -> None:
        """Begin with nothing."""
        raise NotImplementedError("TODO E: begin with nothing")

    async def generate(
        self, prompt: str, sampling_params: SamplingParams, request_id: str
    ) -> AsyncIterator[RequestOutput]:
        """Pass the engine's outputs on, each at once, and take note of what happens.

        When its reader leaves, the request ends in the engine. Errors pass.
        """
        raise NotImplementedError("TODO E: pass the outputs on and take note of what happens")
        yield  # an async generator is an `async def` with a yield: yours replaces this one

    def snapshot(self) -> Snapshot:
        """Return the counts and times of this moment; what happens later does not change it.

        waiting_s  of each request with a token: how long the engine kept it in its queue. The
                   `metrics` of that first output say so, scheduled_ts - queued_ts (left out where
                   `metrics` is None).
        ttft_s     of each request with a token: from submission to its first output with a token
                   (token_ids is not empty), by your own clock.
        latency_s  of each completed request: from submission to its last output.

        Your clock must never go backwards, as time.time() does when somebody sets the clock.
        """
        raise NotImplementedError("TODO E: return the counts and times of this moment")


# --- given: each part at work on the real engine

PROMPTS = [ask(f"What is {what}?") for what in ("a coroutine", "a decorator", "PEP 492 about")]
LONG = SamplingParams(temperature=0.0, max_tokens=1500, ignore_eos=True)
SHORT = SamplingParams(temperature=0.0, max_tokens=24)


async def show_cancelling(engine: AsyncLLMEngine) -> None:
    """Part A: stop an answer of 1,500 tokens after a third of a second (given)."""
    stop = asyncio.Event()
    asyncio.get_running_loop().call_later(0.33, stop.set)
    text, is_finished = await generate_until(engine, PROMPTS[0], LONG, "cancel-1", stop)
    print(f"A  stopped after {len(text)} characters, finished: {is_finished}")


async def show_priorities(engine: AsyncLLMEngine) -> None:
    """Part B: with one place, the urgent one overtakes those that wait (given)."""
    dispatcher = PriorityDispatcher(engine, max_in_flight=1)
    order: list[str] = []

    async def ask_for(name: str, priority: int) -> None:
        await dispatcher.submit(PROMPTS[1], SHORT, f"priority-{name}", priority)
        order.append(name)

    await asyncio.gather(ask_for("first", 5), ask_for("patient", 5), ask_for("urgent", 0))
    print(f"B  answered in this order: {', '.join(order)}")


async def show_timeout(engine: AsyncLLMEngine) -> None:
    """Part C: 1,500 tokens do not fit into 0.2 seconds (given)."""
    try:
        await generate_with_timeout(engine, PROMPTS[0], LONG, "timeout-1", 0.2)
    except TimeoutError:
        print("C  timed out")
    else:
        print("C  made it in time")


async def show_app(engine: AsyncLLMEngine) -> None:
    """Part D: post a prompt to the app, without a server or a socket (given)."""
    if FastAPI is None:
        print("D  needs FastAPI: pip install fastapi")
        return
    body = {"prompt": PROMPTS[2], "max_tokens": 24}
    answer = await Exchange(create_app(engine), "POST", "/generate", body).ended()
    print(f"D  POST /generate answered {answer.status}: {answer.text[:44]}...")


async def show_monitor(engine: AsyncLLMEngine) -> None:
    """Part E: three requests at once, counted and measured (given)."""
    monitor = Monitor(engine)

    async def read(number: int) -> None:
        async for _ in monitor.generate(PROMPTS[number], SHORT, f"monitor-{number}"):
            pass

    await asyncio.gather(*(read(number) for number in range(3)))
    seen = monitor.snapshot()
    print(f"E  {seen.completed} of {seen.submitted} completed, {seen.running} running", end="")
    print(f"; slowest first token {1000 * max(seen.ttft_s, default=0.0):.0f} ms")


PARTS = {
    "A": ("generate_until", show_cancelling),
    "B": ("PriorityDispatcher", show_priorities),
    "C": ("generate_with_timeout", show_timeout),
    "D": ("create_app", show_app),
    "E": ("Monitor", show_monitor),
}


async def main() -> None:
    """Show every part that you have started on the real engine (given)."""
    print("=== Going Further Lab ===\n")
    file = Learner(HERE)
    open_lines = {part: file.open_line(name) for part, (name, _) in PARTS.items()}
    if not all(open_lines.values()):
        engine = AsyncLLMEngine.from_engine_args(AsyncEngineArgs(model=DEFAULT_MODEL))
        try:
            for part, (_, show) in PARTS.items():
                if open_lines[part] is None:
                    await show(engine)
        finally:
            await close(engine)
    for part, line in open_lines.items():
        if line is not None:
            print(f"{part}  not started: {HERE.name}, line {line}")


if __name__ == "__main__":
    asyncio.run(main())
