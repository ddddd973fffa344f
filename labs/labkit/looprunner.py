"""Run learners' coroutines on an event loop in a thread of its own, and watch it from outside.

What no test inside the loop can do: a coroutine that never ends ends in a sentence instead of a
stuck terminal; a loop that is blocked is noticed while it is blocked, and the stack of its thread
names the line; a loop that cannot be saved is left behind and replaced.

           main thread                          loop's thread (daemon)
    run() --- coroutine ---------------------->  a task
      |  every 10 ms: done? beating? too long?   a heartbeat every 10 ms
      |  not beating: look at the thread's stack
      <----- result, or what went wrong -------  settle: no stray tasks left

Always on: coroutines that were never awaited, tasks left behind, exceptions that nobody took.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import sys
import threading
import time
import warnings
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from labkit.cores import Looks, is_computing
from labkit.stacks import (
    Owners,
    Place,
    is_loading,
    place_of_any_task,
    place_of_task,
    place_of_thread,
    suspended_frames,
)
from labkit.timing import Patience, monotonic, scaled, thread_time

BEAT_S = 0.01
BLOCK_S = 0.1
"""Without a heartbeat for this long, and in the learner's code each time we look: blocked."""

LEAST_SHARE = 0.1
"""Whoever gets less of a core than this, however busy the machine, is not to blame for slowness."""

NUM_LOOKS = 3
SLEEP_S = 0.001
"""`time.sleep` on the loop's thread is a mistake from this length on."""

LIMIT_S = 1.5
PATIENCE_S = 30.0
"""A loop that does not run, and for which no line of the learner's is to blame, has so long: it
waits for a core, or imports something large from a slow disk.
"""

SETTLE_S = 0.3
"""How long tasks may take to end by themselves after the coroutine returned."""

GIVE_UP_S = 0.5
"""How long a cancelled coroutine may take to end before its loop is left behind."""


class Trouble(Exception):
    """Something about a coroutine that only its runner can see. `place` is the learner's line."""

    def __init__(self, place: Place | None, **values: object) -> None:
        super().__init__(type(self).__name__, place, values)
        self.place = place
        self.values = values


class Hung(Trouble):
    """It did not end in time, and the loop was free."""


class Blocked(Trouble):
    """It kept the loop from running anything else. Values: ms, is_endless, is_loading, call."""


class NeverAwaited(Trouble):
    """A coroutine was made and dropped. Values: name."""


class StrayTask(Trouble):
    """A task still ran after the coroutine returned. Values: name."""


class Unretrieved(Trouble):
    """A task failed and nobody took its exception. Values: error."""


@dataclass
class _Job:
    """One coroutine on its way. `thread` writes the result, the main thread all else."""

    coroutine: Coroutine[Any, Any, Any]
    done: threading.Event = field(default_factory=threading.Event)
    task: asyncio.Task[Any] | None = None
    result: Any = None
    error: BaseException | None = None
    strays: list[StrayTask] = field(default_factory=list)
    unhandled: list[Unretrieved] = field(default_factory=list)
    blocked: Blocked | None = None


class LoopRunner:
    """One event loop at a time, in a daemon thread. Used from one thread."""

    def __init__(self, owners: Owners) -> None:
        self._owners = owners
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._beat_at = monotonic()
        self._used_at_beat_s = 0.0
        self._num_beats = 0
        self._looks = Looks()
        self._job: _Job | None = None
        self._has_failed = False
        self.abandoned: list[threading.Thread] = []
        """Threads of loops that could not be saved; they may never end."""
        self.returned_at: dict[str, int] = {}
        """Function of the learner's -> the line it last returned (or raised) from."""
        self.forgotten: NeverAwaited | None = None
        """A coroutine that the last run made and dropped."""
        self._real_sleep = time.sleep
        # From now on, so that a learner's `from time import sleep` gets it as well.
        time.sleep = self._sleep

    def run(self, coroutine: Coroutine[Any, Any, Any], limit_s: float = LIMIT_S) -> Any:
        """Run to the end and return the result; raise its exception, or a Trouble.

        A loop that never came back is raised before an exception, all other Trouble after it.
        """
        self._start()
        self._drop_leftovers()
        assert self._loop is not None
        job = self._job = _Job(coroutine)
        with _all_warnings() as caught:
            self._loop.call_soon_threadsafe(self._begin, job)
            self._watch(job, scaled(limit_s))
            error, job.error = job.error, None
            result, job.result = job.result, None
            gc.collect(1)
        self._job = None
        self.forgotten = self._find_forgotten(caught)
        self._has_failed = error is not None
        if job.blocked is not None and _counts(job.blocked, error):
            raise job.blocked
        if error is not None:
            raise error
        for trouble in [self.forgotten, *job.strays, *job.unhandled]:
            if trouble is not None:
                raise trouble
        return result

    def close(self) -> None:
        """End the loop; its thread ends with it."""
        time.sleep = self._real_sleep
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._loop.stop)
        if self._thread is not None:
            self._thread.join(GIVE_UP_S)
            if self._thread.is_alive():
                self.abandoned.append(self._thread)
        self._loop = self._thread = None

    def num_lost(self) -> int:
        """Count the threads left behind that still run."""
        return sum(thread.is_alive() for thread in self.abandoned)

    # --- the main thread's side

    def _start(self) -> None:
        if self._thread is not None:
            return
        ready = threading.Event()
        self._thread = threading.Thread(
            target=self._serve, args=(ready,), name="lab-loop", daemon=True
        )
        self._thread.start()
        ready.wait()

    def _watch(self, job: _Job, limit_s: float) -> None:
        began, beats_before = monotonic(), self._num_beats
        looks = 0
        while not job.done.wait(BEAT_S):
            now = monotonic()
            silent_s = now - self._beat_at
            place = self._look(silent_s)
            looks = looks + 1 if place is not None else 0
            if place is not None and looks >= NUM_LOOKS:
                job.blocked = Blocked(
                    place,
                    ms=round(1000 * silent_s),
                    is_endless=False,
                    is_loading=self._is_loading(),
                    call=place.source,
                )
            is_patience_over = now - began > max(4 * limit_s, scaled(PATIENCE_S))
            if silent_s > limit_s:
                if looks >= NUM_LOOKS or is_patience_over:
                    self._abandon(job)
                    return
                continue
            # A busy machine beats more slowly, and is given more time for it.
            num_beats = self._num_beats - beats_before
            is_fair = num_beats > 0.5 * limit_s / BEAT_S or is_patience_over
            if now - began > limit_s and is_fair:
                if not is_patience_over and self._is_ours_to_end(job):
                    continue
                is_blocked = job.blocked is not None and place is not None
                self._abandon(job) if is_blocked else self._end(job)
                return

    def _look(self, silent_s: float) -> Place | None:
        """Return the learner's line that keeps the loop from beating, if one does."""
        if silent_s < scaled(BLOCK_S) or self._thread is None:
            return None
        much_s = max(scaled(BLOCK_S) / 2, silent_s * LEAST_SHARE)
        if not self._looks.is_at_fault(self._thread, self._used_at_beat_s, much_s):
            return None
        return self._place()

    def _place(self) -> Place | None:
        ident = self._thread.ident if self._thread is not None else None
        return place_of_thread(ident, self._owners)

    def _is_loading(self) -> bool:
        frames = sys._current_frames()
        ident = self._thread.ident if self._thread is not None else None
        return ident is not None and is_loading(frames.get(ident), self._owners)

    def _is_ours_to_end(self, job: _Job) -> bool:
        """Tell whether the coroutine waits for something of ours, which has its own time limit."""
        frames = suspended_frames(job.task.get_coro()) if job.task is not None else ()
        values = (value for frame in frames for value in frame.f_locals.values())
        return any(isinstance(value, Patience) for value in values)

    def _end(self, job: _Job) -> None:
        """Cancel a coroutine that takes too long, after reading where it stands."""
        assert self._loop is not None
        tasks = [task for task in asyncio.all_tasks(self._loop) if task is not job.task]
        place = place_of_task(job.task, self._owners) if job.task is not None else None
        place = place or place_of_any_task(tasks, self._owners)
        for task in [*tasks, *filter(None, [job.task])]:
            self._loop.call_soon_threadsafe(task.cancel)
        if not job.done.wait(scaled(GIVE_UP_S)):
            self._leave_behind()
        job.error = Hung(place)

    def _abandon(self, job: _Job) -> None:
        place = self._place()
        if place is None and job.blocked is not None:
            place = job.blocked.place
        job.blocked = Blocked(
            place,
            ms=0,
            is_endless=True,
            is_loading=False,
            call=place.source if place is not None else "",
        )
        self._leave_behind()

    def _leave_behind(self) -> None:
        """Give up on the loop; the next run gets a new one."""
        thread, self._loop, self._thread = self._thread, None, None
        assert thread is not None
        self.abandoned.append(thread)
        if is_computing(thread):
            # An endless loop in Python would slow everything else down. Never do this to a thread
            # that waits in C code: Python 3.11 then stops making progress in the others.
            ctypes.pythonapi.PyThreadState_SetAsyncExc(
                ctypes.c_ulong(thread.ident or 0), ctypes.py_object(SystemExit)
            )

    def _sleep(self, seconds: float) -> None:
        """Stand in for `time.sleep`, and take note of it on the loop's thread.

        No stopwatch could be as exact.
        """
        caller = sys._getframe(1)
        file = caller.f_code.co_filename
        is_here = self._thread is not None and threading.get_ident() == self._thread.ident
        job = self._job
        if job is not None and is_here and self._owners.is_learners(file) and seconds >= SLEEP_S:
            place = Place(file, caller.f_lineno)
            job.blocked = job.blocked or Blocked(
                place,
                ms=round(1000 * seconds),
                is_endless=False,
                is_loading=is_loading(caller, self._owners),
                call=place.source,
            )
        self._real_sleep(seconds)

    def _drop_leftovers(self) -> None:
        """Let go of what the last exception held, so that it is not taken for this run's."""
        if self._has_failed:
            with _all_warnings():
                gc.collect()

    def _find_forgotten(self, caught: list[warnings.WarningMessage]) -> NeverAwaited | None:
        for warning in caught:
            text = str(warning.message)
            place = self._origin(text)
            if "was never awaited" in text and place is not None:
                return NeverAwaited(place, name=_quoted(text))
        return None

    def _origin(self, text: str) -> Place | None:
        """Find the learner's line in the origin that Python tells with the warning."""
        place = None
        for line in text.splitlines():
            head, _, tail = line.partition(f'File "{self._owners.learner}", line ')
            if tail and not head.strip():
                place = Place(self._owners.learner, int(tail.partition(",")[0]))
        return place

    # --- the loop thread's side

    def _serve(self, ready: threading.Event) -> None:
        loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
        self._loop = loop
        loop.set_exception_handler(self._on_unhandled)
        sys.set_coroutine_origin_tracking_depth(8)
        sys.setprofile(self._on_event)
        self._beat(loop)
        ready.set()
        is_stopped = False
        while not is_stopped and loop is self._loop:
            try:
                loop.run_forever()
                is_stopped = True
            except BaseException:
                # sys.exit() in a learner's coroutine passes through the loop, which goes on: the
                # task has the exception, and the test is told. If the loop was left behind, this
                # is the end of it.
                continue
        sys.setprofile(None)
        loop.close()

    def _beat(self, loop: asyncio.AbstractEventLoop) -> None:
        if loop is self._loop:
            self._beat_at = monotonic()
            self._used_at_beat_s = thread_time()
            self._num_beats += 1
            loop.call_later(BEAT_S, self._beat, loop)

    def _begin(self, job: _Job) -> None:
        loop = asyncio.get_running_loop()
        job.task = loop.create_task(job.coroutine)
        job.task.add_done_callback(lambda task: loop.create_task(self._settle(job, task)))

    async def _settle(self, job: _Job, finished: asyncio.Task[Any]) -> None:
        """Take the result, then wait for what should have ended with the coroutine."""
        if finished.cancelled():
            job.error = asyncio.CancelledError()
        else:
            job.error = finished.exception()
            job.result = finished.result() if job.error is None else None
        del finished
        me = asyncio.current_task()
        patience = Patience(scaled(SETTLE_S))
        while (left := _others(me)) and not patience.is_over():
            await asyncio.sleep(BEAT_S / 2)
        for task in left:
            place = place_of_task(task, self._owners)
            job.strays.append(StrayTask(place, name=_name(task)))
            task.cancel()
        if left:
            await asyncio.wait(left, timeout=scaled(SETTLE_S))
        job.done.set()

    def _on_unhandled(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception") or RuntimeError(context.get("message"))
        if self._job is not None and isinstance(error, Exception):
            text = f"{type(error).__name__}: {error}"
            self._job.unhandled.append(Unretrieved(None, error=text))

    def _on_event(self, frame: Any, event: str, argument: object) -> None:
        """Note where the learner's functions return: a wrong result came from there."""
        if event == "return" and self._owners.is_learners(frame.f_code.co_filename):
            self.returned_at[frame.f_code.co_name] = frame.f_lineno


def _counts(blocked: Blocked, error: BaseException | None) -> bool:
    """Tell whether a blocked loop is a mistake: unless it went on, after the file was loaded.

    What the coroutine raised says more, if it came back.
    """
    went_on = not blocked.values["is_endless"]
    return not (went_on and (error is not None or blocked.values["is_loading"]))


def _others(me: asyncio.Task[Any] | None) -> list[asyncio.Task[Any]]:
    return [task for task in asyncio.all_tasks() if task is not me]


def _name(task: asyncio.Task[Any]) -> str:
    """Return the name of what a task runs; some of asyncio's own have none."""
    return getattr(task.get_coro(), "__qualname__", "a clean-up")


def _quoted(text: str) -> str:
    """Return what stands between the first quotes."""
    return text.partition("'")[2].partition("'")[0]


@contextmanager
def _all_warnings() -> Iterator[list[warnings.WarningMessage]]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield caught
