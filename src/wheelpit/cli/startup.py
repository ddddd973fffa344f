"""StartupClock: how long each part of the start took, from the process's own beginning."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

STARTED_S = time.monotonic()
"""When this module was imported: the fallback where the system does not tell more."""


def process_age_s() -> float:
    """Return the seconds since this process began, Python's own start included.

    Linux counts them in clock ticks (10 ms) since boot; elsewhere they count from our import.
    """
    try:
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        started_s = int(fields[19]) / os.sysconf("SC_CLK_TCK")
        return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - started_s)
    except (OSError, ValueError, IndexError, AttributeError):
        return time.monotonic() - STARTED_S


class StartupClock:
    """Print each phase with its seconds. Written only by the command that starts something."""

    def __init__(
        self,
        show: Callable[[str], None],
        age_s: Callable[[], float] = process_age_s,
    ) -> None:
        self._show = show
        self._age_s = age_s
        self._last_s = 0.0

    def phase(self, name: str) -> None:
        """End a phase: it took the time since the one before."""
        now = self._age_s()
        self.line(name, now - self._last_s)
        self._last_s = now

    def line(self, name: str, seconds: float) -> None:
        """Show the time of something measured elsewhere, which runs beside the phases."""
        self._show(f"  {seconds:6.2f} s  {name}")

    def total_s(self) -> float:
        """Return the seconds since the process began."""
        return self._age_s()
