"""Run a learner's script as they would, in the background, and keep what it printed."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from labkit.timing import scaled


@dataclass(frozen=True)
class Ended:
    """What a script left behind."""

    status: int | None
    """None: it did not end in time and was killed."""
    out: str
    err: str
    seconds: float

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()


class Script:
    """One run of `python starter.py`. Output goes to files: a full pipe would stop the script."""

    def __init__(self, path: Path, limit_s: float) -> None:
        self._deadline = time.monotonic() + scaled(limit_s)
        self._began = time.monotonic()
        self._out, self._err = (tempfile.TemporaryFile() for _ in range(2))  # noqa: SIM115 closed in _text
        environment = {**os.environ, "PYTHONUTF8": "1", "PYTHONUNBUFFERED": "1"}
        self._process = subprocess.Popen(
            [sys.executable, str(path)],
            stdin=subprocess.DEVNULL,
            stdout=self._out,
            stderr=self._err,
            cwd=path.parent,
            env=environment,
        )
        self._ended: Ended | None = None

    def wait(self) -> Ended:
        """Wait for its end, or kill it when its time is over."""
        if self._ended is None:
            try:
                status = self._process.wait(max(0.0, self._deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
                status = None
            self._ended = Ended(
                status, _text(self._out), _text(self._err), time.monotonic() - self._began
            )
        return self._ended

    def kill(self) -> None:
        """End it now, if nobody waited for it."""
        if self._ended is None:
            self._process.kill()
            self._process.wait()
            self._out.close()
            self._err.close()


def _text(file) -> str:
    with file:
        file.seek(0)
        return file.read().decode("utf-8", "replace").replace("\r\n", "\n")
