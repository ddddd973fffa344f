"""The clock and the scale of every time limit in the kit.

Grading stops the clocks for a moment to see who relies on them; whatever must go on meanwhile
imports `monotonic` and `thread_time` from here, bound before that.
"""

from __future__ import annotations

import os
from time import monotonic, thread_time

__all__ = ["SCALE", "Patience", "monotonic", "scaled", "thread_time"]

SCALE = float(os.environ.get("LAB_TIMEOUT_SCALE") or 1.0)
"""LAB_TIMEOUT_SCALE=3 makes every limit three times as long, for a slow or busy machine."""


class Patience:
    """A time limit for whoever looks again and again every few milliseconds, with `is_over()`.

    While a coroutine holds one, the loop runner does not take it for one that hangs.

    It is over when the time is and there were as many looks as half of the time is good for; on a
    machine that is too busy for that, after eight times as long.
    """

    def __init__(self, limit_s: float, look_s: float = 0.005) -> None:
        self._limit_s = limit_s
        self._began = monotonic()
        self._num_looks_left = limit_s / look_s / 2

    def is_over(self) -> bool:
        self._num_looks_left -= 1
        waited_s = monotonic() - self._began
        if self._num_looks_left > 0:
            return waited_s > 8 * self._limit_s
        return waited_s > self._limit_s


def scaled(seconds: float) -> float:
    """Return a limit on this machine."""
    return seconds * SCALE
