"""Replace, for a moment, what grading must not touch for real: engines, and the clock.

Both run a second copy of the learner's file under the replacement, so that whatever its imports
bound is replaced as well.
"""

from __future__ import annotations

import datetime
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from labkit import backend
from labkit.learner import Learner
from labkit.scripted import ScriptedEngine
from labkit.scripted_llm import ScriptedLLM
from labkit.timing import monotonic, scaled


@dataclass
class Record:
    """What was done with the engine classes. Written by the stand-ins."""

    calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = field(default_factory=list)
    """The arguments of each `from_engine_args`."""
    engines: list[ScriptedEngine] = field(default_factory=list)
    """What it gave back, in order."""
    offline: list[ScriptedLLM] = field(default_factory=list)
    """Objects of the offline API, in order."""


@contextmanager
def recorded_engines() -> Iterator[Record]:
    """Let `AsyncLLMEngine.from_engine_args` and `LLM` record what they get and start nothing."""
    record = Record()

    def from_engine_args(cls: type, *arguments: Any, **named: Any) -> ScriptedEngine:
        record.calls.append((arguments, named))
        record.engines.append(ScriptedEngine())
        return record.engines[-1]

    class LLM(ScriptedLLM):
        def __init__(self, *arguments: Any, **named: Any) -> None:
            super().__init__(*arguments, **named)
            record.offline.append(self)

    package = __import__(backend.PACKAGE)
    with (
        _replaced(backend.AsyncLLMEngine, "from_engine_args", classmethod(from_engine_args)),
        _replaced(backend, "LLM", LLM),
        _replaced(package, "LLM", LLM),
        backend.any_engine_args(),
    ):
        yield record


class Stuck(Exception):
    """A call under the stopped clock never returned."""


def with_stopped_clock(
    learner: Learner,
    function: str,
    use: Callable[[Callable[..., Any]], Any],
    limit_s: float,
    ahead_s: float = 0.0,
) -> Any:
    """Run the file and `use(its function)` while no clock of Python's moves; return the result.

    ahead_s: how far from the real time the clocks stand.

    In a thread, because a function that waits for the clock never returns. Raises Stuck then, and
    whatever `use` raises. Nothing else that reads the time may run meanwhile.
    """
    result: list[Any] = []
    errors: list[BaseException] = []

    def work() -> None:
        try:
            module: ModuleType = learner.copy()
            result.append(use(learner.function(function, module)))
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=work, name="lab-stopped-clock", daemon=True)
    with _stopped_clock(ahead_s):
        thread.start()
        began = monotonic()
        # A join with a timeout would do, but for a machine so busy that the thread never ran.
        while thread.is_alive() and monotonic() - began < scaled(limit_s):
            thread.join(0.02)
        is_stuck = thread.is_alive()
    if is_stuck:
        raise Stuck(function)
    if errors:
        raise errors[0]
    return result[0]


CLOCKS = (
    "time",
    "monotonic",
    "perf_counter",
    "process_time",
    "thread_time",
)


@contextmanager
def _stopped_clock(ahead_s: float) -> Iterator[None]:
    now = datetime.datetime.fromtimestamp(time.time() + ahead_s)
    calendar = time.localtime(time.time() + ahead_s)

    class StoppedDateTime(datetime.datetime):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> datetime.datetime:
            return now.astimezone(tz) if tz is not None else now

        @classmethod
        def utcnow(cls) -> datetime.datetime:
            return now

        @classmethod
        def today(cls) -> datetime.datetime:
            return now

    replaced: dict[str, Any] = {}
    for name in CLOCKS:
        seconds = getattr(time, name)() + ahead_s
        replaced[name] = lambda seconds=seconds: seconds
        replaced[f"{name}_ns"] = lambda seconds=seconds: int(seconds * 1e9)
    real_strftime = time.strftime
    replaced["localtime"] = replaced["gmtime"] = lambda seconds=None: calendar
    replaced["strftime"] = lambda format, when=calendar: real_strftime(format, when)
    kept = {name: getattr(time, name) for name in replaced}
    try:
        for name, clock in replaced.items():
            setattr(time, name, clock)
        with _replaced(datetime, "datetime", StoppedDateTime):
            yield
    finally:
        for name, clock in kept.items():
            setattr(time, name, clock)


@contextmanager
def _replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Set an attribute for a moment; afterwards it is as before, also if it was inherited."""
    had, before = name in vars(owner), vars(owner).get(name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        if had:
            setattr(owner, name, before)
        else:
            delattr(owner, name)
