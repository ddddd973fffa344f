"""Find out where a program stands: the line that blocks the loop, the line that a task waits at.

Code belongs to the learner, to us (the kit, the tests, the engine) or to neither (the standard
library). A line of the learner's is blamed for blocking only if nothing of ours stands between it
and what is being executed: an engine that loads its model inside the learner's call is our doing.
"""

from __future__ import annotations

import asyncio
import gc
import inspect
import linecache
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import AsyncGeneratorType, CoroutineType, FrameType, GeneratorType, TracebackType
from typing import Any

BYSTANDERS = ("_on_event",)
"""Functions of ours that Python calls in the middle of anybody's code: the runner's profiler."""

IMPORTING = "<frozen importlib"
"""The code that runs an `import`. It takes its time, but once, and it is nobody's mistake."""

SUSPENDABLE = (CoroutineType, AsyncGeneratorType, GeneratorType)


@dataclass(frozen=True)
class Place:
    """A line of a file."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{Path(self.file).name}, line {self.line}"

    @property
    def source(self) -> str:
        """The line's text, without its indentation."""
        return linecache.getline(self.file, self.line).strip()


@dataclass(frozen=True)
class Owners:
    """Whose code is whose."""

    learner: str
    """The learner's file."""
    ours: tuple[str, ...]
    """Folders of the kit and of the engine, and the tests' files."""

    def is_learners(self, file: str) -> bool:
        return file == self.learner

    def is_ours(self, file: str) -> bool:
        return file.startswith(self.ours)


def place_of_thread(thread_id: int | None, owners: Owners) -> Place | None:
    """Return the learner's line that the thread executes now, or that called what it executes.

    None if the learner is not to blame.
    """
    frame = sys._current_frames().get(thread_id) if thread_id is not None else None
    while frame is not None:
        file = frame.f_code.co_filename
        if owners.is_learners(file):
            return Place(file, frame.f_lineno)
        if owners.is_ours(file) and frame.f_code.co_name not in BYSTANDERS:
            return None
        if file.startswith(IMPORTING):
            return None
        frame = frame.f_back
    return None


def is_loading(frame: FrameType | None, owners: Owners) -> bool:
    """Tell whether the learner's file is being loaded: that takes its time, but once."""
    while frame is not None:
        if owners.is_learners(frame.f_code.co_filename) and frame.f_code.co_name == "<module>":
            return True
        frame = frame.f_back
    return False


def place_of_error(error: BaseException, owners: Owners) -> Place | None:
    """Return the learner's line nearest to where an exception was raised."""
    place = None
    traceback: TracebackType | None = error.__traceback__
    while traceback is not None:
        if owners.is_learners(traceback.tb_frame.f_code.co_filename):
            place = Place(owners.learner, traceback.tb_lineno)
        traceback = traceback.tb_next
    return place


def file_of_error(error: BaseException) -> str:
    """Return the file whose code raised an exception."""
    file = ""
    traceback: TracebackType | None = error.__traceback__
    while traceback is not None:
        file = traceback.tb_frame.f_code.co_filename
        traceback = traceback.tb_next
    return file


def place_of_task(task: asyncio.Task[Any], owners: Owners) -> Place | None:
    """Return the learner's innermost line at which a task is suspended."""
    place = None
    for frame in suspended_frames(task.get_coro()):
        if owners.is_learners(frame.f_code.co_filename):
            place = Place(owners.learner, frame.f_lineno)
    return place


def place_of_any_task(tasks: list[asyncio.Task[Any]], owners: Owners) -> Place | None:
    """Return the first place that `place_of_task` finds."""
    return next(filter(None, (place_of_task(task, owners) for task in tasks)), None)


def suspended_frames(start: Any) -> Iterator[FrameType]:
    """Follow what awaits what, from the outside in; through tasks and gathers as well."""
    pending, seen = [start], set()
    while pending:
        awaitable = pending.pop()
        if id(awaitable) in seen:
            continue
        seen.add(id(awaitable))
        if isinstance(awaitable, SUSPENDABLE):
            frame, inner = _frame_and_inner(awaitable)
            if frame is not None:
                yield frame
            if inner is not None:
                pending.append(inner)
        elif isinstance(awaitable, asyncio.Task):
            pending.append(awaitable.get_coro())
        elif isinstance(awaitable, asyncio.Future):
            pending.extend(getattr(awaitable, "_children", ()))
        else:
            # The objects between an `await` and an async generator or a future show neither; the
            # garbage collector knows what they hold.
            holds = gc.get_referents(awaitable)
            pending.extend(
                held for held in holds if isinstance(held, (*SUSPENDABLE, asyncio.Future))
            )


def _frame_and_inner(awaitable: Any) -> tuple[FrameType | None, Any]:
    if inspect.iscoroutine(awaitable):
        return awaitable.cr_frame, awaitable.cr_await
    if inspect.isasyncgen(awaitable):
        return awaitable.ag_frame, awaitable.ag_await
    return awaitable.gi_frame, awaitable.gi_yieldfrom
