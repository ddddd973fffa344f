"""Virtual time: what happens next, in this process and in the engine's, and in which order.

The front end's side is an event loop of its own, as far as tasks and futures need one. It can stand
still for a while: what comes meanwhile is dealt with afterwards, messages before timers, as asyncio
does. The engine goes on.
"""

from __future__ import annotations

import asyncio
import enum
import heapq
import itertools
from collections import deque
from collections.abc import Callable, Coroutine
from random import Random
from typing import Any

from tests.fakes import ManualClock

BEGIN_S = 1023.7


class Side(enum.IntEnum):
    """Who acts in an event; at the same moment, the smaller goes first."""

    FRONT_END_READS = 0
    FRONT_END = 1
    ENGINE = 2


class Event:
    """Something that is to happen; also a timer, to be cancelled."""

    __slots__ = ("callback", "is_cancelled", "moment_s", "side")

    def __init__(self, moment_s: float, side: Side, callback: Callable[[], None]) -> None:
        self.moment_s = moment_s
        self.side = side
        self.callback = callback
        self.is_cancelled = False

    def cancel(self) -> None:
        self.is_cancelled = True


class World:
    """The clock, the events to come, and the trace of those that were."""

    def __init__(self, seed: int, *, with_trace: bool) -> None:
        # Where rounding is at its worst: sums cross a power of two.
        self.clock = ManualClock(BEGIN_S)
        self.random = Random(f"delays of {seed}")
        self.loop = VirtualLoop(self.clock)
        self.num_events = 0
        self.trace: list[str] | None = [] if with_trace else None
        self._events: list[tuple[float, Side, int, Event]] = []
        self._numbers = itertools.count()
        self._resumes_s = 0.0

    def say(self, text: str) -> None:
        if self.trace is not None:
            self.trace.append(f"{self.clock.now - BEGIN_S:9.4f}  {text}")

    def at(self, moment_s: float, side: Side, callback: Callable[[], None]) -> Event:
        """Have something happen at a moment; not before now."""
        event = Event(max(moment_s, self.clock.now), side, callback)
        heapq.heappush(self._events, (event.moment_s, side, next(self._numbers), event))
        return event

    def set_timer(self, delay_s: float, callback: Callable[[], None]) -> Event:
        """Like `loop.call_later`."""
        return self.at(self.clock.now + delay_s, Side.FRONT_END, callback)

    def stand_still(self, seconds: float) -> None:
        """The front end does nothing for so long."""
        self._resumes_s = max(self._resumes_s, self.clock.now + seconds)

    def has_event_before(self, moment_s: float) -> bool:
        return any(each[0] < moment_s and not each[3].is_cancelled for each in self._events)

    @property
    def is_front_end_behind(self) -> bool:
        """Is something due that the front end has not done yet?"""
        if self.clock.now < self._resumes_s:
            return True
        return bool(self._events) and self._events[0][0] <= self.clock.now

    def step(self) -> bool:
        """Let the next thing happen, and all that follows from it at once; False if none is left
        to happen.
        """
        while self._events:
            moment_s, side, number, event = heapq.heappop(self._events)
            if event.is_cancelled:
                continue
            if side is not Side.ENGINE and moment_s < self._resumes_s:
                heapq.heappush(self._events, (self._resumes_s, side, number, event))
                continue
            self.clock.now = moment_s
            self.num_events += 1
            event.callback()
            self.loop.run_ready()
            return True
        return False

    async def sleep(self, seconds: float) -> None:
        future = self.loop.create_future()
        timer = self.set_timer(seconds, lambda: None if future.done() else future.set_result(None))
        try:
            await future
        finally:
            timer.cancel()

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        return asyncio.Task(work, loop=self.loop)  # type: ignore[arg-type]  # as far as it needs


class VirtualLoop:
    """What futures and tasks of asyncio need of an event loop."""

    def __init__(self, clock: ManualClock) -> None:
        self._clock = clock
        self._ready: deque[tuple[Callable[..., Any], tuple[Any, ...], Any]] = deque()
        self.errors: list[dict[str, Any]] = []

    def call_soon(self, callback: Callable[..., Any], *args: Any, context: Any = None) -> None:
        self._ready.append((callback, args, context))

    def run_ready(self) -> None:
        """Run what is ready, and what becomes ready by that."""
        ready = self._ready
        while ready:
            callback, args, context = ready.popleft()
            if context is None:
                callback(*args)
            else:
                context.run(callback, *args)

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)  # type: ignore[arg-type]  # as far as it needs one

    def time(self) -> float:
        return self._clock.now

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return False

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        self.errors.append(context)
