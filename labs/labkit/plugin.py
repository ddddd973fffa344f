"""The labs' side of pytest: stages in order, short failures, the ladder at the end.

A lab's conftest imports `pytest_configure` from here; that registers the grader, once. Everything
below concerns only test classes that have a `todo`, in modules that have a `LAB`.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import threading
import time
import warnings
from collections.abc import Generator
from pathlib import Path
from types import ModuleType

import pytest

from labkit.lab import Lab

LEAVE_S = 0.5
"""How long threads may take to end before the process leaves without them."""


DROPPED = "coroutine .* was never awaited"
"""What Python tells, some time later, of coroutines that a failure held. The failure's block has
said it, and a forgotten await is found while the test runs.
"""


def pytest_configure(config: pytest.Config) -> None:
    """Register the grader; several labs in one run share it.

    Raises UsageError, a line without a traceback, if there is no engine to grade with.
    """
    if config.pluginmanager.has_plugin("labkit"):
        return
    try:
        importlib.import_module("labkit.backend")
    except ImportError as error:
        raise pytest.UsageError(str(error)) from None
    config.addinivalue_line("filterwarnings", f"ignore:{DROPPED}:RuntimeWarning")
    config.pluginmanager.register(Grader(), "labkit")


class Grader:
    """Grades every lab of one run of pytest."""

    def __init__(self) -> None:
        self._labs: dict[ModuleType, Lab] = {}
        self._status: int = 0
        self._began = time.monotonic()
        self._threads_before = set(threading.enumerate())

    @pytest.fixture
    def lab(self, request: pytest.FixtureRequest) -> Lab:
        """The lab that the test belongs to."""
        return self._lab_of(request.module)

    def pytest_report_header(self) -> str | None:
        chosen = {
            name: os.environ[name] for name in ("LAB_TARGET", "LAB_BACKEND") if name in os.environ
        }
        return "labs: " + ", ".join(f"{k}={v}" for k, v in chosen.items()) if chosen else None

    @pytest.hookimpl(tryfirst=True)
    def pytest_pyfunc_call(self, pyfuncitem: pytest.Function) -> None:
        stage = _stage_of(pyfuncitem)
        if stage is not None:
            self._lab_of(pyfuncitem.module).enter(stage)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        if call.when != "call" or _stage_of(item) is None:
            return report
        lab = self._lab_of(item.module)
        if report.passed:
            lab.passed()
        elif report.failed and call.excinfo is not None:
            text = lab.failed(call.excinfo.value)
            if text is not None:
                report.longrepr = text
        return report

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        for lab in self._labs.values():
            if lab.ladder.states:
                terminalreporter.write_line("")
                for line in lab.ladder.summary(lab.learner.path.name):
                    terminalreporter.write_line(line)

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, exitstatus: int) -> None:
        self._status = int(exitstatus)
        for lab in self._labs.values():
            lab.close()
        if os.environ.get("LAB_REPORT"):
            self._write_report(Path(os.environ["LAB_REPORT"]))

    @pytest.hookimpl(wrapper=True)
    def pytest_unconfigure(self) -> Generator[None, None, None]:
        """Leave without the threads that learners' code keeps from ending, and without a word more.

        Python waits at its exit for every thread of an executor, and some would never end.
        """
        if self._labs:
            warnings.filterwarnings("ignore", DROPPED, RuntimeWarning)
        yield
        deadline = time.monotonic() + LEAVE_S
        while self._labs and self._new_threads() and time.monotonic() < deadline:
            time.sleep(0.02)
        if self._labs and self._new_threads():
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(self._status)

    def _new_threads(self) -> set[threading.Thread]:
        # Daemons too: Python waits for an executor's threads whether they are or not.
        return set(threading.enumerate()) - self._threads_before

    def _lab_of(self, module: ModuleType) -> Lab:
        if module not in self._labs:
            self._labs[module] = Lab(module)
        return self._labs[module]

    def _write_report(self, path: Path) -> None:
        labs = [
            {
                "lab": lab.texts.lab,
                "target": str(lab.learner.path),
                "states": lab.ladder.states,
                "codes": lab.ladder.codes,
                "places": lab.ladder.places,
                "blocks": lab.ladder.blocks,
            }
            for lab in self._labs.values()
        ]
        took = {
            "seconds": round(time.monotonic() - self._began, 3),
            # With its engines and scripts: this does not depend on what else the machine does.
            "processor_seconds": round(sum(os.times()[:4]), 3),
        }
        path.write_text(json.dumps({"labs": labs, **took}), encoding="utf-8")


def _stage_of(item: pytest.Item) -> str | None:
    if not hasattr(getattr(item, "module", None), "LAB"):
        return None
    return getattr(getattr(item, "cls", None), "todo", None)
