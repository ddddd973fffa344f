"""`wheelpit serve` as a process of its own, with a fake engine."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

WHEELPIT = (sys.executable, "-m", "tests.cli.serve_with_fake_engine")

Start = Callable[..., "subprocess.Popen[str]"]


def announcement(process: subprocess.Popen[str]) -> list[str]:
    """Read what is printed up to the curl line."""
    assert process.stdout is not None
    lines: list[str] = []
    for line in process.stdout:
        lines.append(line.rstrip("\n"))
        if line.startswith("curl "):
            return lines
    assert process.stderr is not None
    raise AssertionError(f"ended without being ready: {lines} {process.stderr.read()}")
