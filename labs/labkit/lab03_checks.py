"""What Lab 03's tests look at in parts A, B, C and E, and which mistake that tells of.

Called from the coroutines that the tests run; all raise Failure with a code of hints_lab03.toml.
Part D's are in lab03_http.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import inspect
import itertools
import sys
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from dataclasses import fields
from types import ModuleType
from typing import Any

from labkit import backend
from labkit.feedback import Failure, Shown, clip, timeline
from labkit.lab import Lab
from labkit.learner import Learner
from labkit.probe import Probe
from labkit.scripted import EngineFault, Fail, Hang, Pause, Say, ScriptedEngine, Wait
from labkit.timing import Patience, monotonic, scaled

PARAMS = backend.SamplingParams(temperature=0.0, max_tokens=24)

HALF = [Say("Half"), Hang()]
FAULT = [Say("Half"), Fail(EngineFault("no memory"))]
SLOW = [step for part in ("One", " two", " three") for step in (Pause(0.12), Say(part))]
SOON_S = 1.2
"""What comes at once must come within this: a learner waits for it each time that it does not."""

Bounds = tuple[float, float]

TIMES = ("waiting_s", "ttft_s", "latency_s")


async def awaited(made: Any, code: str) -> Any:
    """Await what a function gave, if that can be awaited."""
    if not inspect.isawaitable(made):
        raise Failure(code, {"you returned": made})
    return await made


async def until(is_so: Callable[[], Any]) -> None:
    while not is_so():
        await asyncio.sleep(0.001)


async def until_stuck(is_so: Callable[[], Any], num_turns: int = 50) -> bool:
    """Let everything run that can, until it is so; nothing here waits for time to pass."""
    for _ in range(num_turns):
        if is_so():
            return True
        await asyncio.sleep(0)
    return bool(is_so())


async def gone(task: asyncio.Task[Any], code: str) -> None:
    """Cancel a task that waits; it must end as cancelled.

    Not in the moment when what it waits for has come: Python 3.11's wait_for forgets a cancellation
    then, which is no mistake of a learner's.
    """
    await until_stuck(task.done)
    task.cancel()
    await asyncio.wait([task])
    if task.cancelled():
        return
    error = task.exception()
    shown = {"you raised": error} if error is not None else {"you returned": task.result()}
    raise Failure(code, shown)


async def expect_fault(made: Awaitable[Any], code: str) -> None:
    """The engine's error must come out."""
    try:
        returned = await made
    except EngineFault:
        return
    except BaseExceptionGroup as group:
        if group.subgroup(EngineFault) is not None:
            return
        raise
    raise Failure(code, {"engine raised": "EngineFault", "you returned": returned})


async def expect_idle(probe: Probe, code: str) -> None:
    """No request may be left in the engine."""
    if not await probe.wait_idle():
        raise Failure(code)


def check_values(probe: Probe, code: str, request_id: str) -> None:
    """Did the engine get what the function was called with?"""
    call = probe.calls[0]
    if (call.prompt, call.request_id) != ("Hello", request_id) or call.sampling_params != PARAMS:
        got = f"prompt={clip(call.prompt, 22)}, request_id={clip(call.request_id, 22)}"
        raise Failure(code, {"engine got": Shown(got)})


# --- part A


async def until_stop(lab: Lab, probe: Probe, stop: asyncio.Event) -> tuple[str, bool]:
    """Call generate_until and make sure of the pair."""
    made = lab.function("generate_until")(probe, "Hello", PARAMS, "req-a", stop)
    pair = await awaited(made, "L3-A-NOTASYNC")
    shown = {"you returned": pair}
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        raise Failure("L3-A-SHAPE", {**shown, "wanted": Shown("('the text', True)")})
    if isinstance(pair[0], bool) and isinstance(pair[1], str):
        raise Failure("L3-A-SWAPPED", shown)
    if not isinstance(pair[0], str) or not isinstance(pair[1], bool):
        raise Failure("L3-A-SHAPE", {**shown, "wanted": Shown("('the text', True)")})
    return pair[0], pair[1]


def check_until(
    returned: tuple[str, bool],
    texts: Sequence[str],
    *,
    is_finished: bool,
    cut: str = "L3-A-TEXT",
) -> None:
    """texts: what may be returned, the best last. cut: the code of a part of a finished text."""
    text, said = returned
    shown = {"you returned": returned, "wanted": (texts[-1], is_finished)}
    if is_finished and text != texts[-1] and texts[-1].startswith(text):
        raise Failure(cut, shown)
    if said != is_finished:
        was = "finished" if is_finished else "stopped"
        raise Failure("L3-A-FLAG", shown, was=was, said=said)
    if text not in texts:
        raise Failure("L3-A-TEXT", shown)


# --- part B


class Queue:
    """A dispatcher of the learner's over a scripted engine, and the requests sent to it.

    A prompt "x" is answered with "Half" until the gate "x" is opened, then with "Half x".
    """

    def __init__(self, lab: Lab, max_in_flight: int, module: Any = None, **scripts: Any) -> None:
        """module: a copy of the learner's file to take the class from."""
        gated = {name: [Say("Half"), Wait(name), Say(f" {name}")] for name in "abcdefgh"}
        self.engine = ScriptedEngine({**gated, **scripts})
        self.probe = Probe(self.engine)
        dispatcher = lab.learner.function("PriorityDispatcher", module)
        self.dispatcher = dispatcher(self.probe, max_in_flight)
        self.tasks: dict[str, asyncio.Task[Any]] = {}

    async def submit(self, name: str, priority: int = 0) -> asyncio.Task[Any]:
        """Submit a prompt and let it get as far as it can. Ids are no help with the order."""
        request_id = f"req-{'hgfedcba'['abcdefgh'.index(name)]}"
        made = self.dispatcher.submit(name, PARAMS, request_id, priority)
        self.tasks[name] = asyncio.create_task(awaited(made, "L3-B-NOTASYNC"))
        await until_stuck(lambda: False, 12)
        return self.tasks[name]

    @property
    def started(self) -> list[str]:
        """The prompts that reached the engine, in order."""
        return [call.prompt for call in self.probe.calls if call.started is not None]

    async def expect_started(self, *names: str, code: str, **values: object) -> None:
        """So many must have reached the engine by now. They are given time: some look only now and
        then whether it is their turn, which is no mistake.
        """
        patience = Patience(scaled(0.7))
        while len(self.started) < len(names) and not patience.is_over():
            self.raise_errors()
            await asyncio.sleep(0.005)
        if len(self.started) < len(names):
            self.raise_errors()
            raise Failure(code, self._shown(), **values)

    async def finish(self, *names: str) -> None:
        """Open these gates and read the texts."""
        for name in names:
            self.engine.open(name)
        for name in names:
            _check_text(await self.tasks[name], name)

    def check_limit(self, limit: int) -> None:
        drawing = timeline(self.probe.calls, self.probe.num_events)
        if self.probe.peak > limit:
            raise Failure("L3-B-LIMIT", drawing=drawing, peak=self.probe.peak, limit=limit)

    def raise_errors(self) -> None:
        """Raise what a submit raised by itself: it explains everything else."""
        for name, task in self.tasks.items():
            is_done = task.done() and not task.cancelled()
            # The engine's own fault is the script's.
            if is_done and not isinstance(task.exception(), EngineFault):
                _check_text(task.result(), name)

    async def close(self) -> None:
        for task in self.tasks.values():
            task.cancel()
        if self.tasks:
            await asyncio.wait(self.tasks.values())

    def _shown(self) -> dict[str, object]:
        return {"engine got": self.started, "submitted": list(self.tasks)}


def _check_text(text: Any, name: str) -> None:
    wanted = f"Half {name}"
    if text != wanted:
        raise Failure("L3-B-TEXT", {"you returned": text, "wanted": wanted})


def check_order(started: Sequence[str], priorities: dict[str, int]) -> None:
    """Did they start by priority, then by arrival? priorities: in the order of arrival."""
    arrived = list(priorities)
    wanted = sorted(arrived, key=lambda name: priorities[name])
    got = list(started)
    if got == wanted:
        return
    shown = {
        "submitted": Shown(", ".join(f"{name}={priorities[name]}" for name in arrived)),
        "started": Shown(", ".join(got)),
        "wanted": Shown(", ".join(wanted)),
    }
    if [priorities[name] for name in got] == [priorities[name] for name in wanted]:
        raise Failure("L3-B-TIES", shown)
    if got == arrived:
        raise Failure("L3-B-FIFO", shown)
    numbers = [priorities[name] for name in got]
    if numbers == sorted(numbers, reverse=True):
        raise Failure("L3-B-HIGHER", shown)
    raise Failure("L3-B-ORDER", shown)


@contextlib.contextmanager
def clock_standing_still(learner: Learner) -> Iterator[ModuleType]:
    """Give a second copy of the learner's file, for whose code no clock of `time` moves."""
    clocks = {
        f"{name}{unit}": getattr(time, f"{name}{unit}")
        for name in ("time", "monotonic", "perf_counter")
        for unit in ("", "_ns")
    }

    def stopped(clock: Callable[[], Any]) -> Callable[[], Any]:
        at = clock()
        file = str(learner.path)
        return lambda: at if sys._getframe(1).f_code.co_filename == file else clock()

    for name, clock in clocks.items():
        setattr(time, name, stopped(clock))
    try:
        yield learner.copy()
    finally:
        for name, clock in clocks.items():
            setattr(time, name, clock)


# --- part C


async def timed(lab: Lab, probe: Probe, timeout_s: float) -> Any:
    """Call generate_with_timeout."""
    made = lab.function("generate_with_timeout")(probe, "Hello", PARAMS, "req-c", timeout_s)
    return await awaited(made, "L3-C-NOTASYNC")


async def expect_timeout(made: Awaitable[Any], code: str, limit_s: float) -> None:
    """TimeoutError must come out, and not before its time. code: of a text instead."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    task = asyncio.ensure_future(made)
    await asyncio.wait([task])
    # A little less than the limit: clocks tick.
    is_early = loop.time() - began < limit_s - 0.02
    if task.cancelled():
        raise Failure("L3-C-OTHER", got="CancelledError")
    error = task.exception()
    if isinstance(error, Failure):
        raise error
    if error is None:
        raise Failure(code, {"you returned": task.result()})
    if not isinstance(error, TimeoutError):
        if isinstance(error, EngineFault | NotImplementedError):
            raise error
        raise Failure("L3-C-OTHER", {"you raised": error}, got=type(error).__name__)
    if is_early:
        values = {"ms": round(1000 * (loop.time() - began)), "limit": round(1000 * limit_s)}
        raise Failure("L3-C-EARLY", **values)


async def undisturbed(attempt: Callable[[], Awaitable[None]], limit_s: float) -> None:
    """Do it; once more, up to five times in all, if the machine kept the loop waiting so long."""
    loop = asyncio.get_running_loop()
    longest_s = 0.0

    async def watch() -> None:
        nonlocal longest_s
        while True:
            began = loop.time()
            await asyncio.sleep(0.005)
            longest_s = max(longest_s, loop.time() - began)

    for _ in range(5):
        longest_s = 0.0
        watching = asyncio.create_task(watch())
        try:
            await attempt()
            # What kept the loop waiting at the end is seen now.
            await until_stuck(lambda: False, 5)
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
        if longest_s < limit_s:
            return


# --- part E


class Watched:
    """A monitor of the learner's over a scripted engine."""

    def __init__(self, lab: Lab, engine: Any, module: Any = None) -> None:
        """module: a copy of the learner's file to take the class from."""
        self.engine = engine
        self.probe = Probe(engine)
        self.monitor = lab.learner.function("Monitor", module)(self.probe)
        self._ids = itertools.count(1)
        self.look("nothing was sent yet")

    def stream(self, prompt: str = "Hello") -> Any:
        made = self.monitor.generate(prompt, PARAMS, f"req-{next(self._ids)}")
        if not hasattr(made, "__anext__"):
            if inspect.iscoroutine(made):
                made.close()
            raise Failure("L3-E-NOTSTREAM", {"you returned": made})
        return made

    async def read(self, prompt: str = "Hello", when: str = "while a request runs") -> list[Any]:
        """Read to the end; look at the counts at each output."""
        outputs = []
        async with contextlib.aclosing(self.stream(prompt)) as stream:
            async for output in stream:
                outputs.append(output)
                self.look(when)
        return outputs

    def look(self, when: str, **wanted: int) -> Any:
        """Take a snapshot: the sum must be right, and the counts named."""
        seen = self.monitor.snapshot()
        names = ("waiting", "running", "completed", "failed", "cancelled")
        if not all(hasattr(seen, name) for name in (*names, "submitted", *TIMES)):
            raise Failure("L3-E-SNAPSHOT", {"you returned": seen})
        counts = {name: getattr(seen, name) for name in ("submitted", *names)}
        shown = {"snapshot": Shown(", ".join(f"{name}={count}" for name, count in counts.items()))}
        if wanted.get("waiting") == 0 and wanted.get("running") == 0:
            for name in ("waiting", "running"):
                if counts[name]:
                    raise Failure("L3-E-GAUGE", shown, when=when, name=name, got=counts[name])
        if counts["submitted"] != sum(counts[name] for name in names):
            raise Failure("L3-E-SUM", shown, when=when)
        for name, want in wanted.items():
            if counts[name] != want:
                raise Failure(
                    "L3-E-COUNT", shown, when=when, name=name, want=want, got=counts[name]
                )
        return seen

    def look_idle(self, when: str, **wanted: int) -> Any:
        """Look when nothing runs any more; the endings that are not named are 0."""
        endings = dict.fromkeys(("completed", "failed", "cancelled"), 0) | wanted
        submitted = sum(endings.values())
        return self.look(when, submitted=submitted, waiting=0, running=0, **endings)


class Stamped:
    """Stands before an engine, and writes down when it was asked for an output and gave it.

    A monitor in front of it looks at its clock between an output and the question for the next:
    so the times that it measures have bounds, however slow the machine.
    """

    def __init__(self, engine: ScriptedEngine) -> None:
        self._engine = engine
        self.asked: list[float] = []
        self.gave: list[float] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    async def generate(self, *arguments: Any, **options: Any) -> AsyncGenerator[Any, None]:
        async with contextlib.aclosing(self._engine.generate(*arguments, **options)) as outputs:
            self.asked.append(monotonic())
            async for output in outputs:
                self.gave.append(monotonic())
                yield output
                self.asked.append(monotonic())

    def bounds(self, output: int, began: float) -> tuple[float, float]:
        """Return how long it took at least, and at most, from submission to this output."""
        # After the last output nobody need ask again.
        until_s = [*self.asked, monotonic()][output + 1]
        return self.gave[output] - self.asked[0], until_s - began


def check_times(seen: Any, waiting_s: float, ttft_s: Bounds, latency_s: Bounds) -> None:
    """Are these the times of one request? With its bounds, each: (at least, at most)."""
    shown = {name: Shown(_milliseconds(getattr(seen, name))) for name in TIMES}
    for code, name, (least, most) in (
        ("L3-E-LATENCY", "latency_s", latency_s),
        ("L3-E-TTFT", "ttft_s", ttft_s),
        ("L3-E-WAITING", "waiting_s", (waiting_s, waiting_s)),
    ):
        times = getattr(seen, name)
        # Clocks differ a little.
        if len(times) != 1 or not least - 0.002 <= times[0] <= most + 0.002:
            wanted = Shown(f"{name}: one, of {1000 * least:.0f} ms")
            raise Failure(code, {**shown, "wanted": wanted})


def _milliseconds(times: Sequence[float]) -> str:
    return ", ".join(f"{1000 * each:.0f} ms" for each in times) or "(none)"


def frozen(snapshot: Any) -> dict[str, Any]:
    """Return what a snapshot says now, copied."""
    values = {field.name: getattr(snapshot, field.name) for field in fields(snapshot)}
    return {name: tuple(v) if isinstance(v, list | tuple) else v for name, v in values.items()}


@contextlib.contextmanager
def clock_set_back() -> Iterator[None]:
    """Let the wall clock go back an hour each time that somebody looks at it."""
    real_time, real_datetime = time.time, datetime.datetime
    looks = itertools.count(1)

    class SetBack(datetime.datetime):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> datetime.datetime:
            return real_datetime.fromtimestamp(time.time(), tz)

    time.time = lambda: real_time() - 3600.0 * next(looks)
    datetime.datetime = SetBack
    try:
        yield
    finally:
        time.time, datetime.datetime = real_time, real_datetime


# --- the real engine


def live_engine(lab: Lab) -> Any:
    """Start the session's one real engine, when the first part that passes needs it."""
    if "engine" not in lab.kept:

        async def start() -> Any:
            args = backend.AsyncEngineArgs(model=backend.DEFAULT_MODEL)
            return backend.AsyncLLMEngine.from_engine_args(args)

        engine = lab.run(start(), limit_s=backend.START_LIMIT_S)
        lab.kept["engine"] = engine
        lab.at_exit(lambda: lab.run(backend.close(engine), limit_s=10.0))
    return lab.kept["engine"]
