"""`wheelpit serve` as a process of its own, with a fake engine."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

WHEELPIT = (sys.executable, "-m", "tests.cli.serve_with_fake_engine")

Start = Callable[..., "Served"]


class Served(subprocess.Popen[str]):
    """`wheelpit serve`; it may log more than a pipe holds that nobody reads."""

    def __init__(self, log: Path, *arguments: str) -> None:
        self._log = log
        with log.open("w") as file:
            command = [*WHEELPIT, *arguments]
            super().__init__(command, stdout=subprocess.PIPE, stderr=file, text=True)

    def end(self, timeout: float | None = None) -> tuple[str, str]:
        """Wait for the end; return what was printed since, and all that was logged."""
        printed, _ = self.communicate(timeout=timeout)
        return printed, self._log.read_text(encoding="utf-8")


def announcement(process: Served) -> list[str]:
    """Read what is printed up to the curl line."""
    assert process.stdout is not None
    lines: list[str] = []
    for line in process.stdout:
        lines.append(line.rstrip("\n"))
        if line.startswith("curl "):
            return lines
    raise AssertionError(f"ended without being ready: {lines} {process.end()[1]}")
