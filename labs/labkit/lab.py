"""What a lab's tests hold: the learner's functions, the loop they run on, and the words for both.

    class TestTodo4aCollectOutput:
        todo = "4a"                      # the stage in hints.toml

        def test_returns_the_last_text(self, lab):
            async def grade():
                text = await lab.call("collect_output", stream)
                if text != "Hello":
                    raise Failure("L2-4A-FIRST", {"you returned": text, "wanted": "Hello"})

            lab.run(grade())

One a test module; made by the plugin, used from the main thread.
"""

from __future__ import annotations

import builtins
import difflib
import inspect
import os
import re
from collections.abc import Callable, Coroutine
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

import pytest

from labkit.feedback import Failure, Ladder, Shown, Stage, Texts, block, load_texts
from labkit.learner import Learner, Unloadable
from labkit.looprunner import (
    LIMIT_S,
    Blocked,
    Hung,
    LoopRunner,
    NeverAwaited,
    StrayTask,
    Trouble,
    Unretrieved,
)
from labkit.places import command, engine_folders
from labkit.stacks import Owners, Place, file_of_error, place_of_error

CODES = {
    Hung: "LAB-HANG",
    Blocked: "LAB-BLOCKED",
    NeverAwaited: "LAB-AWAIT",
    StrayTask: "LAB-STRAY",
    Unretrieved: "LAB-UNRETRIEVED",
}


class Lab:
    """One lab while its tests run."""

    def __init__(self, module: ModuleType) -> None:
        """module: the tests; its LAB names the section of hints.toml."""
        self.module = module
        self.folder = Path(str(module.__file__)).resolve().parent
        self.texts: Texts = load_texts(module.LAB)
        self.ladder = Ladder(self.texts)
        self.stage: Stage = self.texts.stages[0]
        self.learner = Learner(target_in(self.folder))
        ours = (str(Path(__file__).resolve().parent), str(module.__file__), *engine_folders())
        self.owners = Owners(str(self.learner.path), ours)
        self.runner = LoopRunner(self.owners)
        self.kept: dict[str, Any] = {}
        """What several tests of a lab share: a live engine, a running script."""
        self._closers: list[Callable[[], None]] = []
        self._load_error: Unloadable | None = None
        self._is_load_reported = False

    # --- for tests

    def function(self, name: str) -> Callable[..., Any]:
        """Return the learner's function of this name."""
        return self.learner.function(name)

    def run(
        self,
        coroutine: Coroutine[Any, Any, Any],
        limit_s: float = LIMIT_S,
        hang: str | None = None,
    ) -> Any:
        """Run on the watched loop. hang: the code of a coroutine that does not end in time."""
        try:
            return self.runner.run(coroutine, limit_s)
        except Hung as hung:
            if hang is None:
                raise
            raise Failure(hang, place=hung.place) from None
        except Failure:
            # A forgotten await is the cause of nearly every other thing that may look wrong.
            if self.runner.forgotten is not None:
                raise self.runner.forgotten from None
            raise

    async def call(self, name: str, *arguments: Any, not_async: str) -> Any:
        """Call a learner's `async def` and await it. not_async: the code if it is none."""
        made = self.function(name)(*arguments)
        if not inspect.isawaitable(made):
            raise Failure(not_async, {"you returned": made})
        return await made

    def require(self, stage_id: str) -> None:
        """Skip the test unless this stage passes; for tests that build on one of several."""
        stage = self.stage
        if stage_id not in self.ladder.states:
            self.prove(stage_id)
        self.stage = stage
        if self.ladder.states.get(stage_id) != "ok":
            pytest.skip(f"waits for {self.texts.stage(stage_id).name}")

    def pass_over(self, reason: str) -> NoReturn:
        """Skip the stage, for something that this machine lacks."""
        self.ladder.states[self.stage.id] = "skipped"
        self.ladder.reasons[self.stage.id] = reason
        pytest.skip(f"{self.stage.name} is skipped: {reason}")

    def at_exit(self, close: Callable[[], None]) -> None:
        """Call this when all tests are done."""
        self._closers.append(close)

    # --- for the plugin

    def enter(self, stage_id: str) -> None:
        """Begin a test of this stage. Raises Failure if it cannot be graded, or skips it."""
        self.stage = stage = self.texts.stage(stage_id)
        state = self.ladder.states.get(stage.id)
        if state == "open":
            pytest.skip(f"{stage.name} is still open")
        if state == "skipped":
            self.pass_over(self.ladder.reasons[stage.id])
        if state == "FIX":
            pytest.skip(f"{stage.name}: first mend the failure above")
        self._load(stage)
        line = self.learner.open_line(stage.function) if stage.function is not None else None
        if line is not None:
            self._report_open(stage, line)
        if stage.function is not None:
            self.learner.function(stage.function)
        self._prove_needs(stage)
        if waits := self.ladder.waits_for(stage):
            self.ladder.states[stage.id] = "waits"
            names = ", ".join(self.texts.stage(need).name for need in waits)
            pytest.skip(f"waits for {names}")

    def prove(self, stage_id: str) -> None:
        """Run all tests of a stage without a word; the ladder has the result."""
        for tests in list(vars(self.module).values()):
            if getattr(tests, "todo", None) != stage_id:
                continue
            for name in vars(tests):
                if not name.startswith("test_"):
                    continue
                try:
                    self.enter(stage_id)
                    getattr(tests(), name)(self)
                    self.passed()
                except (Exception, pytest.skip.Exception) as error:
                    if not isinstance(error, pytest.skip.Exception):
                        self.failed(error)

    def passed(self) -> None:
        self.ladder.states.setdefault(self.stage.id, "ok")

    def failed(self, error: BaseException) -> str | None:
        """Take note of a failure and return its block; None if it is not the learner's."""
        failure = self.explain(error)
        if failure is None:
            self.ladder.states[self.stage.id] = "FIX"
            return None
        place = failure.place or self._default_place()
        short = f"{self.learner.path.name}:{place.line}" if place else self.learner.path.name
        where = str(place or self.learner.path.name)
        if failure.code == "LAB-OPEN":
            text = f"{self.stage.name} is still open: {where}  ({self.stage.title})"
        else:
            more = command("hint", self.stage.id) if self.stage.hints else ""
            text = block(failure, self.stage, self.texts, where, more)
        self.ladder.fail(self.stage.id, failure.code, short, text)
        return text

    def explain(self, error: BaseException) -> Failure | None:
        """Put an error into words; None if it did not come from the learner's code."""
        place = place_of_error(error, self.owners)
        if isinstance(error, Failure):
            error.place = error.place or place
            return error
        if isinstance(error, Unloadable):
            place = Place(str(self.learner.path), error.line) if error.line else None
            return Failure(error.code, place=place, **error.values)
        if isinstance(error, Trouble):
            return self._explain_trouble(error)
        if isinstance(error, NotImplementedError) and str(error).startswith("TODO"):
            return self._explain_open(error, place)
        for inner in _flat(error):
            meant = self.texts.code_of(self.stage.id, inner)
            if meant is not None:
                code, values = meant
                raised = Shown(_in_a_line(inner))
                place = place_of_error(inner, self.owners) or place
                return Failure(code, {"python said": raised}, place=place, **values)
        if place is None:
            return None
        raised = Shown(_in_a_line(error) + _suggestion(error))
        if self.stage.function is None and self.owners.is_ours(file_of_error(error)):
            return Failure("LAB-ENGINE", {"the engine said": raised}, place=place)
        return Failure("LAB-RAISED", {"your code raised": raised}, place=place)

    def close(self) -> None:
        """End what the tests started, the last first, then the loop."""
        while self._closers:
            self._closers.pop()()
        self.runner.close()

    # --- inside

    def _load(self, stage: Stage) -> None:
        """Run the learner's file, once, on the watched loop; report its failure once."""

        async def load() -> None:
            self.learner.load()

        if self._is_load_reported:
            self.ladder.states[stage.id] = "waits"
            pytest.skip(f"waits: {self.learner.path.name} cannot be loaded")
        try:
            self.run(load())
        except (Unloadable, Hung, Blocked):
            self._is_load_reported = True
            raise

    def _report_open(self, stage: Stage, line: int) -> None:
        if self.texts.open_is == "skip":
            self.ladder.states[stage.id] = "open"
            self.ladder.places[stage.id] = f"{self.learner.path.name}:{line}"
            pytest.skip(f"{stage.name} is not started: {self.learner.path.name}, line {line}")
        raise Failure("LAB-OPEN", place=Place(str(self.learner.path), line))

    def _prove_needs(self, stage: Stage) -> None:
        """Find out about prerequisites whose tests were not selected, without a word."""
        for need in stage.needs:
            if need not in self.ladder.states:
                self.prove(need)
        self.stage = stage

    def _default_place(self) -> Place | None:
        function = self.stage.function
        if function is None:
            return None
        try:
            line = self.runner.returned_at.get(function) or self.learner.line_of(function)
        except Unloadable:
            return None
        return Place(str(self.learner.path), line) if line else None

    def _explain_trouble(self, trouble: Trouble) -> Failure:
        code = CODES[type(trouble)]
        values = {"call": "", "name": "", **trouble.values}
        if isinstance(trouble, Blocked) and values["is_endless"]:
            code = "LAB-STUCK"
        shown: dict[str, object] = {}
        if trouble.place is not None:
            shown["this line"] = Shown(trouble.place.source)
        return Failure(code, shown, place=trouble.place, **values)

    def _explain_open(self, error: NotImplementedError, place: Place | None) -> Failure:
        todo = re.match(r"TODO (\w+)", str(error))
        other = todo.group(1) if todo else "?"
        if other == self.stage.id:
            return Failure("LAB-OPEN", place=place)
        return Failure(
            "LAB-NEEDS", {"your code raised": Shown(str(error))}, place=place, todo=other
        )


def target_in(folder: Path) -> Path:
    """Return the file to grade: starter.py, or what LAB_TARGET says (a name here, or a path)."""
    target = os.environ.get("LAB_TARGET") or "starter"
    name = target if target.endswith(".py") else f"{target}.py"
    return (folder / name).resolve()


def _flat(error: BaseException) -> list[BaseException]:
    """Return the error, or what is in it if it is a group."""
    if isinstance(error, BaseExceptionGroup):
        return [inner for each in error.exceptions for inner in _flat(each)]
    return [error]


def _suggestion(error: BaseException) -> str:
    """Return what may have been meant by a misspelt name, as Python's own tracebacks do."""
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    known: list[str] = []
    if isinstance(error, AttributeError):
        known = dir(error.obj)
    elif isinstance(error, NameError) and traceback is not None:
        known = [*traceback.tb_frame.f_locals, *traceback.tb_frame.f_globals, *dir(builtins)]
    meant = difflib.get_close_matches(getattr(error, "name", None) or "", known, n=1)
    return f" (did you mean {meant[0]}?)" if meant and meant[0] != error.name else ""


def _in_a_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    name = type(error).__name__
    return f"{name}: {text}" if text else name
