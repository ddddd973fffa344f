"""The clock and the scale of every time limit in the kit.

Grading stops the clocks for a moment to see who relies on them; whatever must go on meanwhile
imports `monotonic` and `thread_time` from here, bound before that.
"""

from __future__ import annotations

import os
from time import monotonic, thread_time

__all__ = ["SCALE", "monotonic", "scaled", "thread_time"]

SCALE = float(os.environ.get("LAB_TIMEOUT_SCALE") or 1.0)
"""LAB_TIMEOUT_SCALE=3 makes every limit three times as long, for a slow or busy machine."""


def scaled(seconds: float) -> float:
    """Return a limit on this machine."""
    return seconds * SCALE
